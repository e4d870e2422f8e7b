"""A checkpoint directory is checked before it is loaded, and loaded whole or not at all."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.config import ModelConfig
from handlers.errors import ConfigError
from handlers.requests import SamplingParams
from handlers.weights.checkpoint import Checkpoint, eos_token_ids
from tests.checkpoints import make_checkpoint


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A directory that looks like a checkpoint until its weights are read."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    return tmp_path


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", dtype="bfloat16")


class TestOpen:
    def test_pickled_weights_are_refused_unless_asked_for(self, bare: Path) -> None:
        (bare / "model.safetensors").rename(bare / "pytorch_model.bin")

        with pytest.raises(ConfigError, match=r"safetensors.*handler\.model\.allow_pickle: true"):
            Checkpoint.open(bare, ModelConfig())
        assert Checkpoint.open(bare, ModelConfig(allow_pickle=True)).directory == bare

    def test_remote_code_is_refused_unless_asked_for(self, bare: Path) -> None:
        (bare / "config.json").write_text('{"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}')

        with pytest.raises(ConfigError, match=r"auto_map.*handler\.model\.trust_remote_code: true"):
            Checkpoint.open(bare, ModelConfig())
        assert Checkpoint.open(bare, ModelConfig(trust_remote_code=True)).directory == bare

    def test_a_directory_without_a_configuration_is_no_checkpoint(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot read .*/config\.json"):
            Checkpoint.open(tmp_path, ModelConfig())

    @pytest.mark.parametrize(("content", "complaint"), [(b"{", "valid JSON"), (b"\xff", "valid JSON"), (b"[]", "a JSON object, not list")])
    def test_a_broken_configuration_is_named(self, bare: Path, content: bytes, complaint: str) -> None:
        (bare / "config.json").write_bytes(content)

        with pytest.raises(ConfigError, match=rf"config\.json .*{complaint}"):
            Checkpoint.open(bare, ModelConfig())


class TestSamplingDefaults:
    def defaults(self, bare: Path, given: Any) -> SamplingParams:
        (bare / "generation_config.json").write_text(json.dumps(given))
        return Checkpoint.open(bare, ModelConfig()).sampling_defaults

    def test_without_a_recommendation_nothing_is_filtered(self, bare: Path) -> None:
        assert Checkpoint.open(bare, ModelConfig()).sampling_defaults == SamplingParams()
        assert self.defaults(bare, {"eos_token_id": 2}) == SamplingParams()

    def test_the_authors_recommendation_holds(self, bare: Path) -> None:
        given = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.05, "repetition_penalty": 1.1}
        assert self.defaults(bare, {"do_sample": True} | given) == SamplingParams(**given)

    @pytest.mark.parametrize("given", [{"do_sample": False}, {"do_sample": False, "temperature": 0.6}, {"temperature": 0}])
    def test_a_greedy_recommendation_holds(self, bare: Path, given: dict[str, Any]) -> None:
        assert self.defaults(bare, given).is_greedy

    def test_null_is_no_recommendation(self, bare: Path) -> None:
        assert self.defaults(bare, {"temperature": None, "top_p": None, "top_k": None}) == SamplingParams()

    @pytest.mark.parametrize(
        "given",
        [{"temperature": "hot"}, {"repetition_penalty": 0}, {"top_p": -1}, {"top_k": True}, {"temperature": float("nan")}, []],
    )
    def test_nonsense_is_named(self, bare: Path, given: Any) -> None:
        with pytest.raises(ConfigError, match=r"generation_config\.json"):
            self.defaults(bare, given)


class TestLoad:
    @pytest.mark.parametrize(("dtype", "torch_name"), [("float32", "torch.float32"), ("bfloat16", "torch.bfloat16")])
    def test_the_operators_dtype_wins(self, real: Path, dtype: Any, torch_name: str) -> None:
        assert str(Checkpoint.open(real, ModelConfig(dtype=dtype)).load().dtype) == torch_name

    @pytest.mark.parametrize("has_instructions", [True, False])
    def test_half_precision_stays_where_the_processor_has_it(
        self, real: Path, has_instructions: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import torch

        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_instructions)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

        model = Checkpoint.open(real, ModelConfig()).load()

        assert model.dtype == (torch.bfloat16 if has_instructions else torch.float32)
        assert not model.training

    def test_a_missing_tensor_is_named_instead_of_invented(self, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        directory = make_checkpoint(tmp_path / "model")
        tensors = load_file(directory / "model.safetensors")
        lost = "model.layers.1.mlp.up_proj.weight"
        del tensors[lost]
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})

        with pytest.raises(ConfigError, match=f"model/ lacks 1 tensors of its model, {lost}"):
            Checkpoint.open(directory, ModelConfig()).load()

    def test_a_truncated_file_is_one_line(self, tmp_path: Path) -> None:
        directory = make_checkpoint(tmp_path / "model")
        weights = directory / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])

        with pytest.raises(ConfigError, match="cannot load model/") as caught:
            Checkpoint.open(directory, ModelConfig()).load()
        assert "\n" not in str(caught.value)

    def test_an_unknown_architecture_is_one_line(self, bare: Path) -> None:
        (bare / "config.json").write_text('{"model_type": "unheard_of"}')

        with pytest.raises(ConfigError, match="unheard_of"):
            Checkpoint.open(bare, ModelConfig()).load()

    def test_loading_says_what_was_loaded(self, real: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="handlers"):
            Checkpoint.open(real, ModelConfig()).load()
        assert "LlamaForCausalLM" in caplog.text


@pytest.mark.parametrize(("given", "want"), [(2, {2}), ([2, 3], {2, 3}), (None, set())])
def test_end_of_sequence_tokens_come_in_three_shapes(given: Any, want: set[int]) -> None:
    assert eos_token_ids(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=given))) == want
