"""The way that GPUs take, as much of it as a CPU can run: the libraries' own layers and kernels, under our engine."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, TorchAoConfig

from handlers.config import EngineConfig, ModelConfig
from handlers.engine.build import build_engine_client
from handlers.errors import ConfigError
from handlers.quant import formats
from handlers.quant.formats import Format
from handlers.requests import SamplingParams
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.load_recipes import load_quantizing
from handlers.weights.quantized import load_quantized
from handlers.weights.transformers_quantized import load_making, load_stored
from tests.checkpoints import make_checkpoint
from tests.quantized_checkpoints import SHAPE, make_compressed_tensors, make_torchao

TINYCHAT = Path(__file__).parents[3] / "examples" / "tinychat" / "model"
TOKEN_IDS = torch.arange(10, 40)[None]


@pytest.fixture(scope="module")
def plain() -> Checkpoint:
    return Checkpoint.open(TINYCHAT, ModelConfig())


@torch.inference_mode()
def relative_error(model: PreTrainedModel, expected: PreTrainedModel) -> float:
    got, want = (each(TOKEN_IDS).logits.float() for each in (model, expected))
    return float((got - want).norm() / want.norm())


def first_tokens(model: Any) -> list[int]:
    client = build_engine_client(model, EngineConfig(kv_memory_gib=0.01, max_running=1, native_kernels=False), eos_token_ids=frozenset())
    try:
        client.add("a", TOKEN_IDS[0].tolist(), SamplingParams(max_tokens=6, temperature=0))
        token_ids: list[int] = []
        while len(token_ids) < 6:
            token_ids += [token_id for event in client.poll(10) for token_id in event.token_ids]
        return token_ids
    finally:
        client.close()


@pytest.mark.parametrize("row", [formats.NF4, formats.BNB_INT8, formats.TORCHAO_INT8], ids=lambda row: row.name)
def test_a_recipe_makes_the_same_model_as_ours(plain: Checkpoint, row: Format) -> None:
    assert row.load_recipe
    theirs = load_making(plain, row)
    assert relative_error(load_quantizing(plain, row.load_recipe), theirs) < 0.04  # what computing in bfloat16 or float16 changes
    expected = theirs.generate(TOKEN_IDS, max_new_tokens=6, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert first_tokens(theirs) == expected[0, TOKEN_IDS.shape[1] :].tolist()


@pytest.mark.parametrize(
    ("scheme", "row", "tolerance"),
    [
        ("W4A16_ASYM", formats.W4A16_ASYM, 0.03),
        ("W4A16", formats.W4A16, 0.03),
        ("W8A8", formats.W8A8, 0.03),
        ("FP8_DYNAMIC", formats.CT_FP8, 0.25),  # activations are rounded to 8 bits as well
    ],
)
def test_a_stored_format_of_compressed_tensors_is_read(tmp_path: Path, scheme: str, row: Format, tolerance: float) -> None:
    checkpoint = Checkpoint.open(make_compressed_tensors(tmp_path, scheme=scheme), ModelConfig())
    assert relative_error(load_quantized(checkpoint), load_stored(checkpoint, row)) < tolerance


@pytest.mark.parametrize("kind", ["int4", "fp8"])
def test_torchaos_other_formats_are_read_as_they_were_written(tmp_path: Path, kind: str) -> None:
    """transformers 5.23 writes these, and does not find them again."""
    library = importlib.import_module("torchao.quantization")
    configs = {
        "int4": library.IntxWeightOnlyConfig(torch.int4, library.PerGroup(32)),
        "fp8": library.Float8WeightOnlyConfig(granularity=library.PerRow()),
    }
    source = make_checkpoint(tmp_path / "source", **SHAPE, dtype="bfloat16")
    written = AutoModelForCausalLM.from_pretrained(source, quantization_config=TorchAoConfig(configs[kind]), dtype="auto")
    checkpoint = Checkpoint.open(make_torchao(tmp_path / "model", config=configs[kind]), ModelConfig())
    assert relative_error(load_quantized(checkpoint), written) < 0.03


def test_what_a_library_lacks_is_an_error_of_one_line(plain: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Checkpoint, **options: Any) -> None:
        raise ImportError("Loading a GPTQ quantized model requires optimum\n(`pip install optimum`)")

    monkeypatch.setattr(Checkpoint, "load", fail)
    with pytest.raises(ConfigError, match=r"cannot load model/ as GPTQ: Loading a GPTQ .* requires optimum \(`pip"):
        load_stored(plain, formats.GPTQ)
