"""A recipe at load gives the numbers of the library that made its format known, and a model that an engine runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from handlers.config import ModelConfig
from handlers.native.packed_linear import PackedLinear, can_pack
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.load_recipes import RECIPES, load_quantizing

TINYCHAT = Path(__file__).parents[3] / "examples" / "tinychat" / "model"
TOKEN_IDS = torch.arange(10, 40)[None]
# Relative errors of the logits. 4M parameters are few: with 16 values a weight this is what the libraries' own kernels lose as well.
TOLERANCES = {"int8": 0.03, "torchao-int8": 0.03, "fp8": 0.1, "nf4": 0.25, "torchao-int4": 0.25}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.open(TINYCHAT, ModelConfig())


def random_weight(seed: int, outputs: int = 48, inputs: int = 192) -> Tensor:
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed)) * 0.02


def nf4_of_bitsandbytes(weight: Tensor) -> Tensor:
    functional = importlib.import_module("bitsandbytes").functional
    return functional.dequantize_4bit(*functional.quantize_4bit(weight, quant_type="nf4", blocksize=64))


def int8_of_bitsandbytes(weight: Tensor) -> Tensor:
    codes, largest, _ = importlib.import_module("bitsandbytes").functional.int8_vectorwise_quant(weight.clone())
    return codes.float() * (largest / 127)[:, None]


def torchao(config: Callable[[Any], Any]) -> Callable[[Tensor], Tensor]:
    def quantize(weight: Tensor) -> Tensor:
        library = importlib.import_module("torchao.quantization")
        module = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
        module[0].weight.data.copy_(weight)
        library.quantize_(module, config(library))
        return module[0].weight.detach().dequantize()

    return quantize


REFERENCES: dict[str, Callable[[Tensor], Tensor]] = {
    "nf4": nf4_of_bitsandbytes,
    "int8": int8_of_bitsandbytes,
    "torchao-int8": torchao(lambda library: library.Int8WeightOnlyConfig(version=2)),
    "torchao-int4": torchao(
        lambda library: library.IntxWeightOnlyConfig(torch.int4, library.PerGroup(32), library.MappingType.ASYMMETRIC),
    ),
    "fp8": torchao(lambda library: library.Float8WeightOnlyConfig(granularity=library.PerRow())),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_numbers_are_those_of_the_library(recipe: str) -> None:
    weight = random_weight(0)
    torch.testing.assert_close(RECIPES[recipe](weight).dequantize(), REFERENCES[recipe](weight), atol=2e-8, rtol=1e-6)


@pytest.mark.parametrize("recipe", RECIPES)
def test_zeros_stay_zeros(recipe: str) -> None:
    weight = random_weight(1)
    weight[3] = 0
    weight[5, 64:128] = 0
    quantized = RECIPES[recipe](weight).dequantize()
    assert quantized.isfinite().all()
    assert not quantized[3].any()
    assert not quantized[5, 64:128].any()


# Half of the widest step between values, as a share of the row's largest number.
HALF_STEPS = {"nf4": 0.153, "fp8": 0.036, "torchao-int4": 0.134, "int8": 0.004, "torchao-int8": 0.004}


@settings(max_examples=25, deadline=None)
@given(
    weight=st.builds(random_weight, st.integers(0, 1000), st.integers(1, 5), st.integers(1, 200)),
    scale=st.floats(1e-6, 1e3),
    recipe=st.sampled_from(sorted(RECIPES)),
)
def test_no_number_is_off_by_more_than_half_a_step(weight: Tensor, scale: float, recipe: str) -> None:
    weight = weight * scale
    error = (RECIPES[recipe](weight).dequantize() - weight).abs()
    assert (error <= HALF_STEPS[recipe] * weight.abs().amax(1, keepdim=True)).all()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_model_is_quantized_but_for_head_and_embeddings(checkpoint: Checkpoint, recipe: str) -> None:
    plain, quantized = checkpoint.load(), load_quantizing(checkpoint, recipe)

    packed = {name for name, module in quantized.named_modules() if isinstance(module, PackedLinear)}
    linear = {name for name, module in plain.named_modules() if isinstance(module, nn.Linear)}
    if can_pack(torch.device("cpu")):
        assert packed == linear - {"lm_head"}
    assert torch.equal(quantized.get_input_embeddings().weight, plain.get_input_embeddings().weight)
    assert quantized.generation_config.eos_token_id == plain.generation_config.eos_token_id
    with torch.inference_mode():
        want, got = plain(TOKEN_IDS).logits.float(), quantized(TOKEN_IDS).logits.float()
    assert 0 < (got - want).norm() / want.norm() < TOLERANCES[recipe]


def test_weights_come_from_shards_as_well(checkpoint: Checkpoint, tmp_path: Path) -> None:
    checkpoint.load().save_pretrained(tmp_path, max_shard_size="1MB")
    sharded = Checkpoint.open(tmp_path, ModelConfig())
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    with torch.inference_mode():
        logits = [load_quantizing(each, "int8")(TOKEN_IDS).logits for each in (checkpoint, sharded)]
    assert torch.equal(*logits)
