"""MODEL, wherever it lies, is read as the same facts; whatever is wrong with it is one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archiver.errors import ArchiverError, UsageError
from archiver.package import ArchiveSpec, build_archive
from archiver.plan.model.facts import Role
from archiver.plan.model.source import read_model
from tests.checkpoints import make_checkpoint
from tests.gguf_files import make_gguf
from tests.quantized_checkpoints import shard

LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("source") / "tiny", dtype="bfloat16", tie_word_embeddings=False)


def write(directory: Path, config: object) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return directory


def test_a_checkpoint_directory(checkpoint: Path) -> None:
    facts = read_model(checkpoint)
    assert (facts.name, facts.architecture, facts.num_layers, facts.head_dim) == ("tiny", "LlamaForCausalLM", 2, 8)
    assert facts.is_exact
    assert facts.weight_bytes == 2 * facts.num_elements < (checkpoint / "model.safetensors").stat().st_size


def test_shards_are_read_as_one(checkpoint: Path, tmp_path: Path) -> None:
    copy = make_checkpoint(tmp_path / "tiny", dtype="bfloat16", tie_word_embeddings=False)
    shard(copy)
    assert read_model(copy) == read_model(checkpoint)


def test_a_configuration_without_weights(checkpoint: Path, tmp_path: Path) -> None:
    exact = read_model(checkpoint)
    for place in (checkpoint / "config.json", write(tmp_path / "bare", (checkpoint / "config.json").read_text())):
        facts = read_model(place)
        assert not facts.is_exact
        assert (facts.weights, facts.cache, facts.num_active_elements) == (exact.weights, exact.cache, exact.num_active_elements)


def test_an_index_without_any_of_its_shards_is_no_weights(tmp_path: Path) -> None:
    directory = write(tmp_path / "bare", LLAMA)
    (directory / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    assert not read_model(directory).is_exact


@pytest.mark.parametrize("format", ["mar", "dir"])
def test_an_archive(checkpoint: Path, tmp_path: Path, format: str) -> None:
    handler = tmp_path / "bot.py"
    handler.write_text("class Bot:\n    def initialize(self, context): ...\n    def handle(self, data, context): ...\n")
    archive = build_archive(ArchiveSpec(checkpoint, "tiny", handler=handler, out=tmp_path / "store", format=format))
    assert read_model(archive) == read_model(checkpoint)


def test_a_gguf_file_and_the_directory_that_it_lies_in(checkpoint: Path, tmp_path: Path) -> None:
    file = make_gguf(checkpoint, tmp_path / "tiny.gguf", kind="F16")
    facts, source = read_model(file), read_model(checkpoint)
    assert facts.num_elements == source.num_elements
    assert facts.weights == read_model(tmp_path).weights
    assert facts.cache == source.cache
    norms = facts.role_bytes(Role.NORM)  # which stay in float32
    assert facts.weight_bytes - norms == 2 * (facts.num_elements - norms // 4)


def test_the_hub_sends_a_configuration_and_headers_only(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    asked: list[str] = []

    def download(hub_id: str, file: str, *, revision: str | None) -> str:
        asked.append(f"{hub_id}@{revision}/{file}")
        return str(checkpoint / file)

    def headers(hub_id: str, *, revision: str | None) -> Any:
        asked.append(f"{hub_id}@{revision} headers")
        data = (checkpoint / "model.safetensors").read_bytes()
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        header.pop("__metadata__", None)
        tensors = {name: hub.utils.TensorInfo(**tensor) for name, tensor in header.items()}
        file = hub.utils.SafetensorsFileMetadata({}, tensors)
        return hub.utils.SafetensorsRepoMetadata(None, False, {}, {"model.safetensors": file})

    monkeypatch.setattr(hub, "hf_hub_download", download)
    monkeypatch.setattr(hub, "get_safetensors_metadata", headers)
    assert read_model("owner/tiny", revision="v1") == read_model(checkpoint)
    assert asked == ["owner/tiny@v1/config.json", "owner/tiny@v1 headers"]


def test_a_model_on_the_hub_without_safetensors_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def headers(hub_id: str, *, revision: str | None) -> Any:
        raise hub.errors.NotASafetensorsRepoError

    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: str(write(tmp_path / "bare", LLAMA) / "config.json"))
    monkeypatch.setattr(hub, "get_safetensors_metadata", headers)
    assert not read_model("owner/model").is_exact


def test_a_hub_out_of_reach_is_said_in_one_line() -> None:
    """Run in a subprocess, since the hub's client reads its environment when it is imported."""
    code = (
        "from archiver.plan.model.source import read_model\ntry: read_model('owner/model')\nexcept Exception as error: print(repr(error))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": "/nonexistent"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.startswith("ArchiverError('there is no directory owner/model, and the Hugging Face hub cannot be reached")
    assert result.stdout.count("\n") == 1


@pytest.mark.parametrize("model", ["nowhere", "/no/such/dir", "a/b/c"])
def test_what_is_nowhere(model: str) -> None:
    with pytest.raises(UsageError, match="no such directory"):
        read_model(model)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "config.json is not JSON"),
        ("[" * 100_000, "config.json is not JSON"),
        ([], "config.json holds no JSON object"),
        ({}, r"config.json lacks num_hidden_layers \(or n_layer"),
        (LLAMA | {"hidden_size": None}, r"config.json lacks hidden_size \(or n_embd, d_model\), which must be a number"),
        (LLAMA | {"hidden_size": "64"}, "config.json has '64' as hidden_size"),
        (LLAMA | {"num_attention_heads": -1}, "config.json has -1 as num_attention_heads"),
        (LLAMA | {"num_hidden_layers": 10**9}, "config.json has 1000000000 as num_hidden_layers, which must be 1 to 2048"),
        (LLAMA | {"layer_types": ["full_attention"]}, "config.json names 1 layers where num_hidden_layers is 2"),
        (LLAMA | {"layer_types": "full"}, "config.json has 'full' as layer_types, which must be a list"),
        (LLAMA | {"torch_dtype": "float8"}, "config.json has 'float8' as dtype, which must be one of float32"),
        (LLAMA | {"text_config": 3}, "config.json has 3 as text_config, which must be an object"),
        (LLAMA | {"quantization_config": {"quant_method": "exl3"}}, r"config.json: the checkpoint's weights are quantized .* \(exl3\)"),
    ],
)
def test_a_configuration_that_says_too_little(config: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        read_model(write(tmp_path / "model", config))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("model.safetensors", b"abc", "model.safetensors is no safetensors file"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ("model.safetensors", (10).to_bytes(8, "little") + b'{"a": 1}  ', "has a header that is not safetensors'"),
        ("model.safetensors.index.json", b"{}", "has no weight_map"),
        ("model.safetensors.index.json", b'{"weight_map": {"a": 3}}', "has no weight_map"),
        ("model.gguf", b"GGUF", "model.gguf is damaged"),
    ],
)
def test_damaged_weights(file: str, data: bytes, message: str, tmp_path: Path) -> None:
    (write(tmp_path / "model", LLAMA) / file).write_bytes(data)
    with pytest.raises(UsageError, match=message):
        read_model(tmp_path / "model")


def test_a_missing_shard_among_others(tmp_path: Path) -> None:
    copy = make_checkpoint(tmp_path / "tiny")
    shard(copy)
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UsageError, match=r"lacks the shard model-00002-of-00002.safetensors"):
        read_model(copy)


def test_a_stray_file_a_stray_directory_and_a_stray_archive(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    (tmp_path / "x.mar").write_bytes(b"not a zip")
    with pytest.raises(UsageError, match="neither a checkpoint directory nor"):
        read_model(tmp_path / "notes.txt")
    with pytest.raises(ArchiverError, match=r"damaged or no .mar file"):
        read_model(tmp_path / "x.mar")
    with pytest.raises(UsageError, match=r"is no checkpoint: it has no config.json"):
        read_model(tmp_path)
