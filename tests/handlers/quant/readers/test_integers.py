"""Integers in words, and the weights that they mean."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.errors import ConfigError
from handlers.quant.readers.integers import activation_order, integer_matrix, unpack


def pack(values: list[int], bits: int) -> list[int]:
    """By definition: value i is at bit ``i * bits`` of one long number, which is cut into signed words."""
    number = sum(value << index * bits for index, value in enumerate(values))
    words = [number >> start & 0xFFFFFFFF for start in range(0, len(values) * bits, 32)]
    return [word - (1 << 32) if word >> 31 else word for word in words]


@settings(deadline=None)
@given(st.data(), st.integers(1, 8), st.integers(1, 3), st.integers(1, 70))
def test_what_is_packed_is_unpacked(data, bits, num_rows, num_values):
    rows = data.draw(
        st.lists(st.lists(st.integers(0, (1 << bits) - 1), min_size=num_values, max_size=num_values), min_size=num_rows, max_size=num_rows)
    )
    codes = unpack(torch.tensor([pack(row, bits) for row in rows], dtype=torch.int32), bits)[:, :num_values]
    assert codes.dtype == (torch.uint8 if bits <= 4 else torch.int8)
    offset = 0 if bits <= 4 else 1 << bits - 1
    assert codes.int().add(offset).tolist() == rows


@settings(deadline=None)
@given(st.data(), st.sampled_from([torch.uint8, torch.int8]), st.booleans())
def test_a_matrix_means_codes_less_zeros_times_scales(data, dtype, is_uniform):
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    low, high = (0, 16) if dtype == torch.uint8 else (-128, 128)
    codes = torch.randint(low, high, (3, 8), generator=generator).to(dtype)
    scales = torch.rand(3, 2, generator=generator)
    zeros = torch.randint(low, high, (1, 1) if is_uniform else (3, 2), generator=generator).expand(3, 2)
    matrix = integer_matrix(codes, scales, zeros)
    expected = (codes.float().view(3, 2, 4) - zeros[..., None]) * scales[..., None]
    torch.testing.assert_close(matrix.dequantize(), expected.view(3, 8), atol=1e-4, rtol=1e-5)
    if is_uniform and dtype == torch.uint8:
        assert matrix.minima is None


def test_the_order_of_activation_sorts_inputs_by_group():
    assert activation_order(torch.tensor([1, 0, 1, 0]), 2).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize("groups", [None, torch.tensor([0, 0, 1, 1]), torch.tensor([-1, -1, -1, -1])])
def test_inputs_in_their_groups_need_no_order(groups):
    assert activation_order(groups, 2) is None


@pytest.mark.parametrize("groups", [[0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 2, 3]])
def test_uneven_groups_are_refused(groups):
    with pytest.raises(ConfigError, match="differ in size"):
        activation_order(torch.tensor(groups), 2)
