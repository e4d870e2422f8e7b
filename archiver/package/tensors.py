"""The header of a safetensors file: which tensors it holds, without reading their data and without torch.

Format (https://huggingface.co/docs/safetensors): 8 bytes little-endian header length, a JSON object of ``{name: {dtype, shape,
data_offsets}}`` with an optional ``__metadata__``, then the data, which the offsets cover without gaps.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydantic import NonNegativeInt, TypeAdapter


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a header has it: its ``dtype`` by safetensors' name (``BF16``), its shape, and where its bytes begin and end."""

    dtype: str
    shape: tuple[NonNegativeInt, ...]
    data_offsets: tuple[NonNegativeInt, NonNegativeInt]

    @property
    def num_elements(self) -> int:
        """Elements of that dtype; of packed formats each holds several numbers."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Its bytes in the file."""
        return self.data_offsets[1] - self.data_offsets[0]


_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the reference implementation's limit
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
         "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64}  # fmt: skip
_LFS_POINTER = b"version "  # a Git LFS pointer begins so: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md


@dataclass(frozen=True)
class TensorHeader:
    """The tensors by name, and the size that the whole file must have."""

    tensors: Mapping[str, StoredTensor]
    file_bytes: int

    @property
    def names(self) -> frozenset[str]:
        """The names of the tensors."""
        return frozenset(self.tensors)

    @property
    def elements(self) -> dict[str, int]:
        """The number of elements by dtype, ``{"BF16": 1024}``."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors.values():
            counts[tensor.dtype] += tensor.num_elements
        return dict(sorted(counts.items()))


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
    for name, tensor in tensors.items():
        if tensor.dtype in _BITS and tensor.num_bytes * 8 != tensor.num_elements * _BITS[tensor.dtype]:
            raise ValueError(f"gives {name} {tensor.num_bytes} bytes, which its shape contradicts; copy or download it again")
    return TensorHeader(tensors, expected)


def _parse(data: bytes) -> dict[str, StoredTensor]:
    try:
        header = TypeAdapter(dict[str, Any]).validate_json(data)
        header.pop("__metadata__", None)
        return TypeAdapter(dict[str, StoredTensor]).validate_python(header)
    except ValueError:
        raise ValueError("has a header that is not safetensors'") from None
