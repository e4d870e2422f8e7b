"""Multiplying in FP8: what rounding inputs and weights costs and no more, for rows of any size, alone or fused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from handlers.native.fp8_linear import Fp8Linear, can_multiply, round_rows
from handlers.native.quantized_matrix import QuantizedMatrix

INPUTS, OUTPUTS = 64, 48


def make_layer(seed: int, outputs: int = OUTPUTS, *, has_bias: bool = True) -> tuple[Fp8Linear, nn.Linear]:
    """Return a layer, and a plain one with the same weights."""
    torch.manual_seed(seed)
    plain = nn.Linear(INPUTS, outputs, bias=has_bias).requires_grad_(False)
    codes, scales = round_rows(plain.weight.data)
    plain.weight.data = codes.float() * scales
    return Fp8Linear(codes, scales[:, 0], plain.bias if has_bias else None), plain


def relative_error(got: Tensor, expected: Tensor) -> float:
    return float((got.float() - expected).norm() / expected.norm())


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 9), scale=st.floats(1e-6, 1e6), has_bias=st.booleans())
def test_it_multiplies_rounded_rows(seed: int, rows: int, scale: float, has_bias: bool) -> None:
    layer, plain = make_layer(seed, has_bias=has_bias)
    inputs = torch.randn(rows, INPUTS) * torch.logspace(0, 2, rows)[:, None] * scale
    codes, scales = round_rows(inputs)
    assert relative_error(layer(inputs), plain(codes.float() * scales)) < 0.005  # bfloat16
    assert relative_error(layer(inputs), plain(inputs)) < 0.05


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_outputs_have_the_dtype_and_the_shape_of_the_inputs(dtype: torch.dtype) -> None:
    outputs = make_layer(0)[0](torch.randn(2, 3, INPUTS, dtype=dtype))
    assert (outputs.dtype, outputs.shape) == (dtype, (2, 3, OUTPUTS))


def test_zeros_are_zeros() -> None:
    layer, _ = make_layer(1, has_bias=False)
    inputs = torch.randn(3, INPUTS)
    inputs[1] = 0
    outputs = layer(inputs)
    assert outputs.isfinite().all()
    assert outputs.any(dim=1).tolist() == [True, False, True]


@pytest.mark.parametrize("has_bias", [True, False])
def test_fused_layers_say_what_each_says_and_keep_nothing_twice(has_bias: bool) -> None:
    layers = [make_layer(seed, outputs, has_bias=has_bias)[0] for seed, outputs in enumerate((16, 48, 32))]
    inputs = torch.randn(5, INPUTS)
    expected = torch.cat([layer(inputs) for layer in layers], dim=-1)
    fused = Fp8Linear.beside(layers)
    assert torch.equal(fused(inputs), expected)
    assert torch.equal(torch.cat([layer(inputs) for layer in layers], dim=-1), expected)
    start, end = fused.weight.data_ptr(), fused.weight.data_ptr() + fused.weight.nbytes
    assert all(start <= layer.weight.data_ptr() < end for layer in layers)


def test_a_cpu_has_kernels_of_its_own() -> None:
    matrix = QuantizedMatrix(torch.zeros(16, 16).to(torch.float8_e4m3fn), torch.ones(16, 1))
    assert not can_multiply(matrix, torch.device("cpu"))
