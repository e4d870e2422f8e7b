"""The header of a safetensors file: which tensors it holds, without reading their data and without torch.

Format (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON object of ``{name: {dtype, shape,
data_offsets}}`` with an optional ``__metadata__``, then the data, which the offsets cover without gaps.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydantic import NonNegativeInt, TypeAdapter


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: list[NonNegativeInt]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]


_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the reference implementation's limit
_LFS_POINTER = b"version "  # a Git LFS pointer begins so: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md


@dataclass(frozen=True)
class TensorHeader:
    """``names`` of the tensors, number of ``elements`` by dtype (``{"BF16": 1024}``), and the size that the whole file must have."""

    names: frozenset[str]
    elements: dict[str, int]
    file_bytes: int


def read_header(file: BinaryIO, file_bytes: int) -> TensorHeader:
    """Read the header of a safetensors file of ``file_bytes``, opened at its start; raises ValueError that says what is wrong with it."""
    prefix = file.read(_LENGTH_BYTES)
    if prefix == _LFS_POINTER:
        raise ValueError("is a Git LFS pointer, not the weights; run `git lfs pull`")
    length = int.from_bytes(prefix, "little")
    if len(prefix) < _LENGTH_BYTES or length > min(_MAX_HEADER_BYTES, file_bytes - _LENGTH_BYTES):
        raise ValueError("is no safetensors file, or only its beginning")
    tensors = _parse(file.read(length))
    expected = _LENGTH_BYTES + length + max((tensor.data_offsets[1] for tensor in tensors.values()), default=0)
    if file_bytes != expected:
        raise ValueError(f"has {file_bytes} bytes where its header says {expected}; copy or download it again")
    elements: Counter[str] = Counter()
    for tensor in tensors.values():
        elements[tensor.dtype] += math.prod(tensor.shape)
    return TensorHeader(frozenset(tensors), dict(sorted(elements.items())), expected)


def _parse(data: bytes) -> dict[str, _Tensor]:
    try:
        header = TypeAdapter(dict[str, Any]).validate_json(data)
        header.pop("__metadata__", None)
        return TypeAdapter(dict[str, _Tensor]).validate_python(header)
    except ValueError:
        raise ValueError("has a header that is not safetensors'") from None
