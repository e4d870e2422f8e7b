"""Matrices in the layout that the kernels read (unpack.h), plain ones and quantized ones."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from handlers.native.huge_pages import HugePages
from handlers.native.library import load_kernels
from handlers.native.quantized_matrix import QuantizedMatrix

TILE = 16
PANEL = 32
"""Columns (outputs) of a tile, and of the two that are read side by side; inputs come in slices of as many."""

_PARTS = ("codes", "scales", "minima", "table", "order")
_SMALL_GROUPS = (8, 16)
_PLAIN, _4BIT, _INT8, _FP8 = range(4)
_KINDS = {torch.int8: _INT8, torch.float8_e4m3fn: _FP8}


class MatrixStruct(ctypes.Structure):
    """The ``Matrix`` of unpack.h. It points to memory that somebody else must keep."""

    _fields_: ClassVar = [
        *((name, ctypes.c_int64) for name in ("columns", "depth", "kind", "group")),
        *((name, ctypes.c_float) for name in ("scale_unit", "minimum_unit")),
        *((name, ctypes.c_void_p) for name in _PARTS),
    ]


@dataclass(frozen=True)
class Factors:
    """What groups are multiplied by, or what is added to them: in float16, a fraction of the error that quantizing made.

    As multiples of ``unit``, the largest of them, so that it does not matter how small they are.
    """

    multiples: Tensor  # (columns / 16, groups, 16) float16
    unit: float

    @classmethod
    def of(cls, values: Tensor, memory: HugePages) -> Factors:
        """Pack ``(columns, groups)``."""
        unit = max(values.abs().max().item(), torch.finfo(torch.float32).tiny)
        by_tile = _pad_outputs(values.float() / unit).view(-1, TILE, values.shape[1]).transpose(1, 2)
        return cls(memory.empty(*by_tile.shape, dtype=torch.float16).copy_(by_tile), unit)

    def of_tiles(self, tiles: slice) -> Factors:
        """Return those of some tiles, in the same memory."""
        return Factors(self.multiples[tiles], self.unit)


@dataclass(frozen=True)
class PackedMatrix:
    """A weight of ``columns`` outputs and ``depth`` inputs, both multiples of 32; the first dimension of each part runs over its tiles."""

    kind: int
    group: int
    codes: Tensor  # see unpack.h: (columns / 16, steps of inputs, 16, numbers of a step)
    scales: Factors | None = None
    minima: Factors | None = None
    table: Tensor | None = None  # (32,) bfloat16: the values of 4-bit codes, twice
    order: Tensor | None = None  # (depth,) int64, see QuantizedMatrix

    @classmethod
    def plain(cls, weight: Tensor, memory: HugePages) -> PackedMatrix:
        """Copy a bfloat16 weight ``(outputs, inputs)``; outputs are padded to a whole panel, with zeros."""
        return cls(_PLAIN, weight.shape[1], _pack_pairs(_pad_outputs(weight), memory))

    @classmethod
    def quantized(cls, matrix: QuantizedMatrix, memory: HugePages) -> PackedMatrix:
        """Copy a quantized weight for which ``can_hold`` is true; outputs are padded to a whole panel, with zeros."""
        codes, scales = _pad_outputs(matrix.codes.view(torch.uint8)), Factors.of(matrix.scales, memory)
        minima = None if matrix.minima is None else Factors.of(matrix.minima, memory)
        if matrix.table is not None:
            nibbles, table = _pack_nibbles(codes, memory), matrix.table.to(torch.bfloat16).repeat(2)
            return cls(_4BIT, matrix.group_size, nibbles, scales, minima, table, matrix.order)
        return cls(_KINDS[matrix.codes.dtype], matrix.group_size, _pack_bytes(codes, memory), scales, minima, order=matrix.order)

    @property
    def columns(self) -> int:
        """Outputs, with those that were added."""
        return TILE * len(self.codes)

    @property
    def depth(self) -> int:
        """Inputs."""
        _, steps, _, width = self.codes.shape
        return steps * width * (4 if self.kind == _4BIT else 1)

    @property
    def is_plain(self) -> bool:
        """Whether it is a bfloat16 weight, which is read without being unpacked."""
        return self.kind == _PLAIN

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return sum(part.nbytes for part in self._parts.values())

    def slice(self, start: int, stop: int) -> PackedMatrix:
        """Return the columns from ``start`` to ``stop``, whole panels, in the same memory."""
        tiles = slice(start // TILE, stop // TILE)
        scales, minima = (None if part is None else part.of_tiles(tiles) for part in (self.scales, self.minima))
        return PackedMatrix(self.kind, self.group, self.codes[tiles], scales, minima, self.table, self.order)

    def struct(self) -> MatrixStruct:
        """Return what the kernels take; good while this object lives."""
        pointers = {name: part.data_ptr() for name, part in self._parts.items()}
        units = {name: part.unit for name, part in (("scale_unit", self.scales), ("minimum_unit", self.minima)) if part is not None}
        return MatrixStruct(columns=self.columns, depth=self.depth, kind=self.kind, group=self.group, **pointers, **units)

    @property
    def _parts(self) -> dict[str, Tensor]:
        """All that it holds, by the names of the struct."""
        factors = {name: part.multiples for name, part in (("scales", self.scales), ("minima", self.minima)) if part is not None}
        others = {"table": self.table, "order": self.order}
        return {"codes": self.codes, **factors, **{name: part for name, part in others.items() if part is not None}}


def can_hold(matrix: QuantizedMatrix) -> bool:
    """Whether the kernels can read a quantized weight: inputs in whole slices, groups that end where slices or their quarters do."""
    group, inputs = matrix.group_size, matrix.codes.shape[1]
    return inputs % PANEL == 0 and (group % PANEL == 0 or group in _SMALL_GROUPS)


def _pad_outputs(rows: Tensor) -> Tensor:
    return functional.pad(rows, (0, 0, 0, -len(rows) % PANEL))


def _pack_pairs(weight: Tensor, memory: HugePages) -> Tensor:
    """Return a bfloat16 weight ``(columns, inputs)`` as ``(columns / 16, inputs / 2, 16, 2)``."""
    columns, inputs = weight.shape
    return _call("marquee_pack_pairs", weight, memory.empty(columns // TILE, inputs // 2, TILE, 2, dtype=weight.dtype))


def _pack_bytes(codes: Tensor, memory: HugePages) -> Tensor:
    """Return codes of a byte ``(columns, inputs)`` as ``(columns / 16, inputs, 16, 1)``."""
    columns, inputs = codes.shape
    return _call("marquee_pack_bytes", codes, memory.empty(columns // TILE, inputs, TILE, 1, dtype=codes.dtype))


def _pack_nibbles(codes: Tensor, memory: HugePages) -> Tensor:
    """Return 4-bit codes ``(columns, inputs)`` as ``(columns / 16, inputs / 8, 16, 2)``: the words of unpack.h."""
    columns, inputs = codes.shape
    return _call("marquee_pack_nibbles", codes, memory.empty(columns // TILE, inputs // 8, TILE, 2, dtype=torch.int16))


def _call(function: str, source: Tensor, target: Tensor) -> Tensor:
    library = load_kernels("pack")
    assert library is not None, "nobody packs what no kernel will read"
    source = source.contiguous()
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (source, target))
    getattr(library, function)(*pointers, *map(ctypes.c_int64, (*source.shape, torch.get_num_threads())))
    return target
