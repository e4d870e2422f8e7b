"""Against bitsandbytes' own dequantization, weights whose blocks straddle rows among them."""

import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from handlers.errors import ConfigError
from handlers.quant.readers.bitsandbytes import make_reader


def read(octets: Tensor, state: Any) -> Tensor:
    """What is stored of a layer, read back."""
    parts = {"weight": octets} | {f"weight.{name}": part for name, part in state.as_dict(packed=True).items()}
    return make_reader({}).read(parts).dequantize()


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("shape", [(4, 64), (6, 192)])
def test_4_bits(shape, kind, nested):
    functional = importlib.import_module("bitsandbytes").functional
    octets, state = functional.quantize_4bit(torch.randn(shape), quant_type=kind, compress_statistics=nested)
    torch.testing.assert_close(read(octets, state), functional.dequantize_4bit(octets, state), atol=1e-6, rtol=1e-5)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 100).map(lambda half: 2 * half), st.sampled_from([64, 128]), st.integers(0, 100))
def test_blocks_that_straddle_rows(outputs, inputs, block, seed):
    """By definition: bitsandbytes 0.50 itself goes wrong on a CPU where a row is shorter than a block."""
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    octets, state = importlib.import_module("bitsandbytes").functional.quantize_4bit(weight, quant_type="nf4", blocksize=block)
    codes = torch.stack([octets >> 4, octets & 15], -1).flatten()[: weight.numel()].long()
    expected = state.code[codes] * state.absmax.repeat_interleave(block)[: weight.numel()]
    torch.testing.assert_close(read(octets, state), expected.view(outputs, inputs), atol=1e-6, rtol=1e-5)


def test_int8():
    weight = torch.randn(4, 8)
    codes, largest, _ = importlib.import_module("bitsandbytes").functional.int8_vectorwise_quant(weight.half())
    found = make_reader({}).read({"weight": codes, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)})
    torch.testing.assert_close(found.dequantize(), weight, atol=0.02, rtol=0)


def test_the_tiles_of_a_gpu_are_refused():
    parts = {"weight": torch.zeros(4, 8, dtype=torch.int8), "SCB": torch.ones(4), "weight_format": torch.tensor(2, dtype=torch.uint8)}
    with pytest.raises(ConfigError, match="save them again"):
        make_reader({}).read(parts)
