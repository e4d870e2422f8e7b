"""Rows of query and key projections change places, and come back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.quantize.gguf.file_types import MIXED_BY_LLAMA_CPP, WRITTEN_HERE, file_type_number, parse_type
from archiver.quantize.gguf.tensors import interleave_rows

SIZES = {"num_heads": st.integers(1, 5), "half": st.integers(1, 6), "columns": st.integers(1, 3)}


@given(**SIZES)
def test_halves_alternate(num_heads, half, columns):
    rows = np.arange(num_heads * 2 * half * columns).reshape(-1, columns)
    mixed = interleave_rows(rows, num_heads)
    for head in range(num_heads):
        start = head * 2 * half
        own, result = rows[start : start + 2 * half], mixed[start : start + 2 * half]
        assert (result[0::2] == own[:half]).all() and (result[1::2] == own[half:]).all()


@given(**SIZES)
def test_rotating_neighbours_of_mixed_rows_is_rotating_halves(num_heads, half, columns):
    """The reason for it: scores of queries and keys stay what they were."""
    rng = np.random.default_rng(0)
    rows, x = rng.normal(size=(num_heads * 2 * half, columns)), rng.normal(size=columns)
    angles = rng.normal(size=half)
    plain = (rows @ x).reshape(num_heads, 2, half)
    first, second = plain[:, 0], plain[:, 1]
    halves = np.stack([first * np.cos(angles) - second * np.sin(angles), second * np.cos(angles) + first * np.sin(angles)])
    mixed = (interleave_rows(rows, num_heads) @ x).reshape(num_heads, half, 2)
    even, odd = mixed[..., 0], mixed[..., 1]
    neighbours = np.stack([even * np.cos(angles) - odd * np.sin(angles), odd * np.cos(angles) + even * np.sin(angles)])
    np.testing.assert_allclose(neighbours, halves)


def test_types():
    assert parse_type("q4_k_m") == "Q4_K_M"
    with pytest.raises(UsageError, match="did you mean Q4_K_M"):
        parse_type("Q4_KM")
    assert len({file_type_number(name) for name in WRITTEN_HERE + MIXED_BY_LLAMA_CPP}) == len(WRITTEN_HERE + MIXED_BY_LLAMA_CPP)
