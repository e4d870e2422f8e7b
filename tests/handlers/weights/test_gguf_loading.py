"""A GGUF file becomes the model that transformers makes of it, with its weights still packed; what cannot is left to others, or refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from handlers.config import ModelConfig
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile
from handlers.native.packed_linear import PackedLinear, can_pack
from handlers.requests import SamplingParams
from handlers.weights import gguf as loading
from handlers.weights.checkpoint import Checkpoint, eos_token_ids
from handlers.weights.gguf import load_gguf
from tests.checkpoints import TINY, make_checkpoint, make_tokenizer
from tests.gguf_files import make_gguf

PROMPT = torch.tensor([[5, 6, 7, 100, 200, 300, 8, 9]])


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a random Llama with tied embeddings."""
    return make_checkpoint(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def qwens(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the directories of a random Qwen2, which has biases, and Qwen3, which has norms of queries and keys and its own head width."""
    from transformers import AutoConfig, AutoModelForCausalLM

    directories = {}
    for kind in ("qwen2", "qwen3"):
        directory = directories[kind] = tmp_path_factory.mktemp(kind)
        tokenizer = make_tokenizer()
        sizes = TINY | {"vocab_size": len(tokenizer), "tie_word_embeddings": kind == "qwen2", "head_dim": 16 if kind == "qwen3" else 8}
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes))
        for parameter in model.parameters():
            parameter.data.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.3)
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)
    return directories


def open_gguf(source: Path, directory: Path, dtype: Any = "float32", **options: Any) -> Checkpoint:
    """Convert the checkpoint ``source`` and open the result."""
    make_gguf(source, directory / "model.gguf", **options)
    return Checkpoint.open(directory, ModelConfig(dtype=dtype))


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=PROMPT).logits


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_a_dense_file_is_the_model_that_it_was_made_of(kind: str, llama: Path, qwens: dict[str, Path], tmp_path: Path) -> None:
    source = {"llama": llama, **qwens}[kind]
    model = load_gguf(open_gguf(source, tmp_path), "auto")
    torch.testing.assert_close(logits(model), logits(Checkpoint.open(source, ModelConfig()).load()), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0"])
def test_quantized_layers_are_packed_and_are_what_transformers_dequantizes(kind: str, llama: Path, tmp_path: Path) -> None:
    checkpoint = open_gguf(llama, tmp_path, kind=kind)
    model, reference = load_gguf(checkpoint, "continuous"), checkpoint.load()
    layers = [name for name, module in reference.named_modules() if isinstance(module, nn.Linear)]
    for name in layers:
        layer = model.get_submodule(name)
        assert isinstance(layer, PackedLinear) == can_pack(torch.device("cpu"))
        weight = layer.dequantize() if isinstance(layer, PackedLinear) else layer.weight
        torch.testing.assert_close(weight, reference.get_submodule(name).weight, rtol=2**-7, atol=2e-3)  # bfloat16 on the way
    torch.testing.assert_close(model.get_input_embeddings().weight, reference.get_input_embeddings().weight)


def test_llama_3_s_rotary_factors_are_applied(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = load_gguf(open_gguf(llama, tmp_path), "auto").model.rotary_emb.inv_freq
    factors = np.array([1, 2, 4, 8], np.float32)
    import tests.gguf_files as writing

    write = writing.write_gguf
    monkeypatch.setattr(writing, "write_gguf", lambda *rest: write(*rest[:3], rest[3] | {"rope_freqs.weight": factors}, *rest[4:]))

    scaled = load_gguf(open_gguf(llama, tmp_path), "auto").model.rotary_emb.inv_freq

    torch.testing.assert_close(scaled, plain / torch.from_numpy(factors))


@pytest.mark.parametrize(("kind", "dtype", "expected"), [("F32", "auto", {"float32"}), ("Q8_0", "auto", {"float32", "bfloat16"})])
def test_what_is_quantized_is_computed_in_half_precision_where_that_is_fast(llama, tmp_path, kind, dtype, expected) -> None:
    assert str(open_gguf(llama, tmp_path, dtype, kind=kind).cpu_dtype).removeprefix("torch.") in expected


def test_the_file_says_what_ends_a_sequence_and_how_to_sample(llama: Path, tmp_path: Path) -> None:
    recommended = {"general.sampling.temp": 0.5, "general.sampling.top_k": 7}
    checkpoint = open_gguf(llama, tmp_path, **recommended)
    assert checkpoint.sampling_defaults == SamplingParams(temperature=0.5, top_k=7)
    assert eos_token_ids(load_gguf(checkpoint, "auto")) == eos_token_ids(checkpoint.gguf) == {1}
    assert open_gguf(llama, tmp_path).sampling_defaults == SamplingParams()


def test_llama_cpp_takes_the_file_itself(llama: Path, tmp_path: Path) -> None:
    assert isinstance(load_gguf(open_gguf(llama, tmp_path), "llamacpp"), GgufFile)


def test_another_family_goes_to_llama_cpp_or_is_dequantized(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_gguf(llama, tmp_path)
    monkeypatch.setattr(loading, "is_readable", lambda file: False)
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: None)
    assert eos_token_ids(load_gguf(checkpoint, "auto")) == {1}
    monkeypatch.setattr(loading.importlib.util, "find_spec", lambda name: SimpleNamespace())
    assert load_gguf(checkpoint, "auto") is checkpoint.gguf


def test_a_family_that_nobody_reads_is_one_line(llama: Path, tmp_path: Path) -> None:
    file = make_gguf(llama, tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes().replace(b"llama", b"lhama"))
    with pytest.raises(ConfigError, match=r"cannot load .*lhama"):
        load_gguf(Checkpoint.open(tmp_path, ModelConfig()), "continuous")


def test_a_file_that_lacks_a_tensor_is_one_line(llama: Path, tmp_path: Path) -> None:
    file = make_gguf(llama, tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes().replace(b"blk.1.attn_q.weight", b"blk.7.attn_q.weight"))
    with pytest.raises(ConfigError, match=r"model\.layers|lhama|blk"):
        load_gguf(Checkpoint.open(tmp_path, ModelConfig()), "continuous")
