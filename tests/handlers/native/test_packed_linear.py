"""Packed weights: the kernels multiply by exactly what the codes mean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from handlers.native.huge_pages import HugePages
from handlers.native.packed_linear import PackedLinear
from handlers.native.packed_matrix import PackedMatrix
from handlers.native.quantized_matrix import QuantizedMatrix

pytestmark = pytest.mark.usefixtures("instructions")


@st.composite
def matrices(draw: st.DrawFn) -> QuantizedMatrix:
    """Any codes, in any groups that the kernels can read."""
    kind, group = draw(st.sampled_from(["4-bit", "int8", "fp8"])), draw(st.sampled_from([8, 16, 32, 64, 96]))
    outputs, inputs = draw(st.integers(1, 70)), 192
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    shape, groups = (outputs, inputs), (outputs, inputs // group)
    bits = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
    scales = torch.rand(groups, generator=generator) * draw(st.sampled_from([1e-6, 0.01, 30.0]))
    minima = torch.randn(groups, generator=generator) * scales if draw(st.booleans()) else None
    order = torch.randperm(inputs, generator=generator) if draw(st.booleans()) else None
    if kind == "4-bit":
        return QuantizedMatrix(bits % 16, scales, minima, torch.randn(16, generator=generator).bfloat16().float(), order)
    if kind == "int8":
        return QuantizedMatrix(bits.view(torch.int8), scales, minima, order=order)
    codes = bits.view(torch.float8_e4m3fn)
    return QuantizedMatrix(torch.where(codes.float().isnan(), torch.zeros(()), codes.float()).to(codes.dtype), scales, minima, order=order)


@settings(max_examples=60, deadline=None)
@given(matrices())
def test_what_is_multiplied_is_the_dequantized_weight(matrix):
    linear = PackedLinear(matrix)
    assert linear.packed is not None
    # Factors are rounded to float16; where a value and a minimum nearly cancel, what is left is as exact as they are.
    largest = matrix.scales.max() * (5 + (matrix.codes.float() if matrix.table is None else matrix.table).abs().max())
    torch.testing.assert_close(linear.dequantize(), matrix.dequantize(), rtol=2**-10, atol=2**-11 * largest.item())


def test_values_of_a_table_are_rounded_to_bfloat16():
    codes, table = torch.arange(16, dtype=torch.uint8).repeat(2, 2), torch.randn(16)
    linear = PackedLinear(QuantizedMatrix(codes, torch.ones(2, 1), table=table))
    assert torch.equal(linear.dequantize()[0, :16], table.bfloat16().float())


@settings(max_examples=40, deadline=None)
@given(matrices(), st.integers(1, 70), st.booleans())
def test_products_are_those_of_the_dequantized_weight(matrix, num_rows, has_bias):
    outputs, inputs = matrix.codes.shape
    bias = torch.arange(outputs, dtype=torch.bfloat16) if has_bias else None
    linear = PackedLinear(matrix, bias)
    rows = torch.randn(num_rows, inputs, generator=torch.Generator().manual_seed(num_rows)).bfloat16()
    expected = functional.linear(rows.float(), linear.dequantize(), None if bias is None else bias.float())
    got = linear(rows[None])
    assert got.dtype == torch.bfloat16
    assert (got[0].float() - expected).norm() <= 0.005 * expected.norm()


def test_a_row_comes_out_the_same_whatever_stands_beside_it():
    matrix = QuantizedMatrix(torch.randint(0, 16, (64, 96), dtype=torch.uint8), torch.rand(64, 3), table=torch.arange(16.0))
    linear, rows = PackedLinear(matrix), torch.randn(70, 96).bfloat16()
    together = linear(rows)
    assert all(torch.equal(linear(rows[i : i + 1])[0], together[i]) for i in (0, 1, 31, 32, 69))


@pytest.mark.parametrize(("inputs", "group"), [(40, 40), (96, 12), (24, 8)])
def test_odd_shapes_work_without_the_kernels(inputs, group):
    matrix = QuantizedMatrix(torch.randint(-128, 128, (5, inputs), dtype=torch.int8), torch.rand(5, inputs // group))
    linear, rows = PackedLinear(matrix), torch.randn(3, inputs)
    assert linear.packed is None
    torch.testing.assert_close(linear(rows), rows @ matrix.dequantize().T)


def test_a_weight_takes_little_more_than_its_codes():
    matrix = QuantizedMatrix(torch.randint(0, 16, (256, 512), dtype=torch.uint8), torch.rand(256, 4), table=torch.arange(16.0))
    assert PackedLinear(matrix).weight_bytes == 256 * 512 // 2 + 256 * 4 * 2 + 64


def test_a_slice_is_a_view_of_whole_panels():
    weight = torch.randn(96, 64).bfloat16()
    matrix = PackedMatrix.plain(weight, HugePages())
    part = matrix.slice(32, 96)
    assert (part.columns, part.depth, part.codes.data_ptr()) == (64, 64, matrix.codes.data_ptr() + 32 * 64 * 2)


@pytest.mark.parametrize(
    ("codes", "scales", "table"),
    [
        (torch.zeros(4, 32, dtype=torch.int8), torch.ones(4, 1), torch.zeros(16)),
        (torch.zeros(4, 32, dtype=torch.uint8), torch.ones(4, 1), None),
        (torch.zeros(4, 32, dtype=torch.int8), torch.ones(4, 5), None),
        (torch.zeros(4, 32, dtype=torch.int8), torch.ones(3, 1), None),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(codes, scales, table):
    with pytest.raises(ValueError, match="must be|do not divide"):
        QuantizedMatrix(codes, scales, table=table)
