"""safetensors headers: read right, and refused in words that help."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from archiver.package.tensors import TensorHeader, read_header


def read(data: bytes) -> TensorHeader:
    return read_header(io.BytesIO(data), len(data))


def file_with_header(header: object, data_bytes: int = 0) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data_bytes)


def test_counts_elements_by_dtype() -> None:
    tensors = {"a": np.zeros((2, 3), np.float16), "b": np.zeros(4, np.float16), "scalar": np.zeros((), np.int8)}
    data = save(tensors, metadata={"format": "pt"})
    header = read(data)
    assert (header.names, header.elements, header.file_bytes) == (frozenset(tensors), {"F16": 10, "I8": 1}, len(data))


def test_gives_each_tensor_with_its_shape_and_size() -> None:
    header = read(save({"a": np.zeros((2, 3), np.float16)}))
    assert header.tensors["a"].shape == (2, 3)
    assert header.tensors["a"].num_bytes == 12


def test_a_shape_that_is_no_match_for_its_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="gives a 12 bytes, which its shape contradicts"):
        read(file_with_header({"a": {"dtype": "F16", "shape": [7], "data_offsets": [0, 12]}}, 12))


@pytest.mark.parametrize("data", [b"", b"abc", b"\xff" * 8, b"version https://git-lfs", (10**9).to_bytes(8, "little") + b"{}"])
def test_refuses_what_is_no_safetensors_file(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"is no safetensors file|git lfs pull"):
        read(data)


@pytest.mark.parametrize(
    "header", [[], 3, {"a": 3}, {"a": {"dtype": "F16", "shape": [-1], "data_offsets": [0, 2]}}, {"a": {"dtype": "F16"}}]
)
def test_refuses_a_malformed_header(header: object) -> None:
    with pytest.raises(ValueError, match="header that is not safetensors"):
        read(file_with_header(header))


def test_sees_a_truncated_file() -> None:
    data = save({"a": np.zeros(100, np.float32)})
    with pytest.raises(ValueError, match=f"has {len(data) - 1} bytes where its header says {len(data)}"):
        read(data[:-1])


@given(st.binary(max_size=64))
def test_random_bytes_raise_nothing_but_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"^(is|has) "):
        read(len(data).to_bytes(8, "little") + b"x" + data)
