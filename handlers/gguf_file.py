"""What a GGUF file says before its weights begin: its metadata, and which tensors lie where. Data only: nothing in it is executed.

Format (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md): the magic number, a version, two counts, the metadata as typed
key-value pairs, the tensors' names, dimensions (innermost first), types and offsets; then, aligned, their data.
"""

from __future__ import annotations

import functools
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from handlers.errors import ConfigError

BLOCK_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210), 16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1),
    25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
}  # fmt: skip
"""ggml's tensor types by number: name, elements of a block, bytes of a block."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_VERSIONS = (2, 3)
_MAX_DIMENSIONS = 4
_LFS_POINTER = b"vers"  # a Git LFS pointer begins with "version"
_PARTIAL = "is damaged, or only the beginning of a GGUF file; copy or download it again"
# What ends an answer besides the declared end: older files name the end of the text only, and chat models end with these.
_ENDS_OF_TURN = frozenset({"<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>"})
_CONTROL_TOKEN = 3


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor of the file: its ``type`` by ggml's name, its ``shape`` outermost first, and its bytes from ``offset`` on."""

    type: str
    shape: tuple[int, ...]
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file whose header has been read, and which is as long as that says."""

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GgufTensor]

    @classmethod
    def open(cls, path: Path) -> GgufFile:
        """Read the header of the model in ``path``; raise ConfigError, in one line, for what holds no whole language model."""
        try:
            with path.open("rb") as stream:
                return cls.read(stream, path.stat().st_size, path)
        except OSError as error:
            raise ConfigError(f"cannot read {path.name}: {error.strerror}") from error
        except ValueError as error:
            raise ConfigError(f"{path.name} {error}") from None

    @classmethod
    def read(cls, stream: BinaryIO, num_bytes: int, path: Path) -> GgufFile:
        """Read the header of a file of ``num_bytes`` from its start; raise ValueError that says what is wrong with the file."""
        reader = _Reader(stream, num_bytes)
        try:
            num_tensors, num_pairs = reader.read_preamble()
            metadata = dict(reader.read_pair() for _ in range(num_pairs))
            tensors = reader.read_tensors(num_tensors, _alignment(metadata))
        except struct.error:
            raise ValueError(_PARTIAL) from None
        file = cls(path, metadata, tensors)
        _check_model(file)
        return file

    @property
    def architecture(self) -> str:
        """What kind of model it is, by llama.cpp's name; the first part of its own metadata keys."""
        return str(self.metadata["general.architecture"])

    @property
    def elements(self) -> dict[str, int]:
        """The number of elements by type."""
        counts: Counter[str] = Counter()
        for tensor in self.tensors.values():
            counts[tensor.type] += math.prod(tensor.shape)
        return dict(sorted(counts.items()))

    def number(self, name: str, default: float | None = None) -> float:
        """Return a ``setting`` that is a number; raise ConfigError if it is none, or missing without a ``default``."""
        value = self.setting(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"{self.path.name}: {self.architecture}.{name} must be a number, got {value!r}")
        return value

    def setting(self, name: str, default: Any = None) -> Any:
        """Return a metadata value of the architecture: ``setting("block_count")`` is ``llama.block_count`` for a Llama."""
        return self.metadata.get(f"{self.architecture}.{name}", default)

    @functools.cached_property
    def eos_token_ids(self) -> frozenset[int]:
        """The tokens that end a sequence: the declared ends of text, turn and message, and well-known control tokens that do."""
        declared = {self.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")}
        tokens, kinds = (self.metadata.get(f"tokenizer.ggml.{name}", ()) for name in ("tokens", "token_type"))
        typed = enumerate(zip(tokens, kinds, strict=False))
        known = {token_id for token_id, (token, kind) in typed if kind == _CONTROL_TOKEN and token in _ENDS_OF_TURN}
        return frozenset(token_id for token_id in declared | known if isinstance(token_id, int))


def find_gguf(directory: Path) -> Path | None:
    """Return the GGUF file that makes ``directory`` a checkpoint: its only one, beside no safetensors. Raises ConfigError for several."""
    files = sorted(directory.glob("*.gguf"))
    if not files or any(directory.glob("*.safetensors")):
        return None
    if len(files) > 1:
        raise ConfigError(
            f"{directory.name}/ holds {len(files)} GGUF files, and a model is one: name the one you mean, "
            "or join the parts of a split one (llama-gguf-split --merge)"
        )
    return files[0]


class _Reader:
    """Reads values one after the other, and never asks for more than the file has."""

    def __init__(self, stream: BinaryIO, num_bytes: int) -> None:
        self._stream = stream
        self._num_bytes = num_bytes
        self._position = 0

    def read_preamble(self) -> tuple[int, int]:
        """Return how many tensors and how many metadata pairs follow."""
        magic = self._take(4)
        if magic == _LFS_POINTER:
            raise ValueError("is a Git LFS pointer, not the weights; run `git lfs pull`")
        if magic != b"GGUF":
            raise ValueError("is no GGUF file")
        version = self._number("I")
        if version not in _VERSIONS:
            kind = "big-endian GGUF" if not version & 0xFFFF else f"GGUF version {version}"
            raise ValueError(f"is {kind}; convert it to little-endian version {_VERSIONS[-1]}")
        return self._number("Q"), self._number("Q")

    def read_pair(self) -> tuple[str, Any]:
        return self._string(), self._value(self._number("I"))

    def read_tensors(self, count: int, alignment: int) -> dict[str, GgufTensor]:
        found = [self._tensor() for _ in range(count)]
        data_start = -(-self._position // alignment) * alignment
        tensors = {name: GgufTensor(type_, shape, data_start + offset, size) for name, type_, shape, offset, size in found}
        if len(tensors) < count:
            raise ValueError("names a tensor twice; convert it again")
        end = max((tensor.offset + tensor.num_bytes for tensor in tensors.values()), default=0)
        if end > self._num_bytes:
            raise ValueError(f"has {self._num_bytes} bytes where its header says {end}; copy or download it again")
        return tensors

    def _tensor(self) -> tuple[str, str, tuple[int, ...], int, int]:
        name, num_dimensions = self._string(), self._number("I")
        if num_dimensions > _MAX_DIMENSIONS:
            raise ValueError(_PARTIAL)
        shape = tuple(self._number("Q") for _ in range(num_dimensions))[::-1]
        kind, offset = self._number("I"), self._number("Q")
        if kind not in BLOCK_TYPES:
            raise ValueError(f"holds {name} in a format of number {kind}, which is unknown; quantize it to another, Q4_K_M for one")
        type_, block_elements, block_bytes = BLOCK_TYPES[kind]
        if shape and shape[-1] % block_elements:
            raise ValueError(_PARTIAL)
        return name, type_, shape, offset, math.prod(shape) // block_elements * block_bytes

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(self._number("I"), self._number("Q"))
        if kind not in _SCALARS:
            raise ValueError(_PARTIAL)
        return self._number(_SCALARS[kind])

    def _array(self, kind: int, count: int) -> tuple[Any, ...]:
        if kind == _STRING:
            return tuple([self._string() for _ in range(count)])
        if kind not in _SCALARS:
            raise ValueError(_PARTIAL)  # arrays of arrays are allowed, and nobody writes them
        layout = struct.Struct(f"<{self._bounded(count)}{_SCALARS[kind]}")
        return layout.unpack(self._take(layout.size))

    def _string(self) -> str:
        return self._take(self._number("Q")).decode("utf-8", "replace")

    def _number(self, code: str) -> Any:
        layout = _layout(code)
        return layout.unpack(self._take(layout.size))[0]

    def _take(self, size: int) -> bytes:
        data = self._stream.read(self._bounded(size))
        if len(data) < size:
            raise ValueError(_PARTIAL)
        self._position += size
        return data

    def _bounded(self, size: int) -> int:
        if size > self._num_bytes - self._position:
            raise ValueError(_PARTIAL)
        return size


@functools.cache
def _layout(code: str) -> struct.Struct:
    return struct.Struct(f"<{code}")


def _alignment(metadata: Mapping[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(_PARTIAL)
    return alignment


def _check_model(file: GgufFile) -> None:
    num_parts = file.metadata.get("split.count", 1)
    if num_parts not in (0, 1):
        raise ValueError(f"is one of {num_parts} parts; join them first (llama-gguf-split --merge)")
    if not isinstance(file.metadata.get("general.architecture"), str):
        raise ValueError("names no architecture (general.architecture); convert it again")
    if not file.tensors or not file.setting("block_count"):
        kind = file.metadata.get("general.type", file.architecture)
        raise ValueError(f"is no language model ({kind}); give the file with the model's weights")
    if not file.metadata.get("tokenizer.ggml.tokens"):
        raise ValueError("has no tokenizer; convert the model again, with it")
