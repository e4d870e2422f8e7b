"""ggml's block formats as QuantizedMatrix: the same numbers, taken apart into codes, scales and minima.

Each format is a packed C struct, repeated along a row (ggml-common.h; what its fields mean: dequantize_row_* in ggml-quants.c). Below,
``blocks`` is ``(num_blocks, block_bytes)`` uint8, and its columns are a struct's bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.native.quantized_matrix import QuantizedMatrix

_UNSIGNED = tuple(range(16))
_NONLINEAR = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # IQ4_NL's levels
_FP4 = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # E2M1, doubled


@dataclass(frozen=True)
class _Parts:
    """``codes`` ``(num_blocks, elements)``, ``scales`` and ``minima`` ``(num_blocks, groups)``; see QuantizedMatrix for ``table``."""

    codes: Tensor
    scales: Tensor
    minima: Tensor | None = None
    table: tuple[int, ...] | None = None


def can_unpack(block_type: str) -> bool:
    """Whether ``unpack`` knows a format."""
    return block_type in _FORMATS


def unpack(block_type: str, data: Tensor) -> QuantizedMatrix:
    """Take ``data``, ``(outputs, row_bytes)`` uint8, apart; the weight is exactly what ggml dequantizes."""
    outputs = data.shape[0]
    parse, block_bytes = _FORMATS[block_type]
    parts = parse(data.reshape(-1, block_bytes))
    return QuantizedMatrix(
        codes=parts.codes.view(outputs, -1),
        scales=parts.scales.reshape(outputs, -1),
        minima=None if parts.minima is None else parts.minima.reshape(outputs, -1),
        table=None if parts.table is None else torch.tensor(parts.table, dtype=torch.float32),
    )


def _q4_0(blocks: Tensor) -> _Parts:
    return _Parts(_planes(blocks[:, 2:], 4), _half(blocks, 0), table=tuple(code - 8 for code in _UNSIGNED))


def _q4_1(blocks: Tensor) -> _Parts:
    return _Parts(_planes(blocks[:, 4:], 4), _half(blocks, 0), _half(blocks, 2), table=_UNSIGNED)


def _q5_0(blocks: Tensor) -> _Parts:
    codes = _planes(blocks[:, 6:], 4) | _fields(blocks[:, 2:6], 1) << 4
    return _Parts(codes.view(torch.int8) - 16, _half(blocks, 0))


def _q5_1(blocks: Tensor) -> _Parts:
    codes = _planes(blocks[:, 8:], 4) | _fields(blocks[:, 4:8], 1) << 4
    return _Parts(codes.view(torch.int8), _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Tensor) -> _Parts:
    return _Parts(blocks[:, 2:].contiguous().view(torch.int8), _half(blocks, 0))


def _q2_k(blocks: Tensor) -> _Parts:
    scales = blocks[:, :16]
    codes = _planes(blocks[:, 16:80].view(-1, 2, 32), 2).flatten(1)
    return _Parts(codes, _half(blocks, 80) * (scales & 15), -_half(blocks, 82) * (scales >> 4), table=_UNSIGNED)


def _q3_k(blocks: Tensor) -> _Parts:
    low = _planes(blocks[:, 32:96].view(-1, 2, 32), 2).flatten(1)
    high = _planes(blocks[:, :32], 1)
    packed = blocks[:, 96:108]
    scales = _planes(packed[:, :8], 4) | _planes(packed[:, 8:], 2) << 4
    return _Parts(low | high << 2, _half(blocks, 108) * (scales.float() - 32), table=tuple(code - 4 for code in _UNSIGNED))


def _q4_k(blocks: Tensor) -> _Parts:
    scales, minima = _k_scales(blocks)
    return _Parts(_planes(blocks[:, 16:].view(-1, 4, 32), 4).flatten(1), scales, minima, table=_UNSIGNED)


def _q5_k(blocks: Tensor) -> _Parts:
    scales, minima = _k_scales(blocks)
    codes = _planes(blocks[:, 48:].view(-1, 4, 32), 4).flatten(1) | _planes(blocks[:, 16:48], 1) << 4
    return _Parts(codes.view(torch.int8), scales, minima)


def _q6_k(blocks: Tensor) -> _Parts:
    low = _planes(blocks[:, :128].view(-1, 2, 64), 4).flatten(1)
    high = _planes(blocks[:, 128:192].view(-1, 2, 32), 2).flatten(1)
    scales = blocks[:, 192:208].contiguous().view(torch.int8)
    return _Parts((low | high << 4).view(torch.int8) - 32, _half(blocks, 208) * scales)


def _iq4_nl(blocks: Tensor) -> _Parts:
    return _Parts(_planes(blocks[:, 2:], 4), _half(blocks, 0), table=_NONLINEAR)


def _iq4_xs(blocks: Tensor) -> _Parts:
    low = _fields(blocks[:, 4:8], 4)
    high = _fields(blocks[:, 2:4], 2)
    scales = _half(blocks, 0) * ((low | high << 4).float() - 32)
    return _Parts(_planes(blocks[:, 8:].view(-1, 8, 16), 4).flatten(1), scales, table=_NONLINEAR)


def _mxfp4(blocks: Tensor) -> _Parts:
    exponents = blocks[:, :1].float() - 128  # one less than E8M0's bias: the table is doubled
    return _Parts(_planes(blocks[:, 1:], 4), torch.exp2(exponents), table=_FP4)


_FORMATS: Mapping[str, tuple[Callable[[Tensor], _Parts], int]] = {
    "Q4_0": (_q4_0, 18), "Q4_1": (_q4_1, 20), "Q5_0": (_q5_0, 22), "Q5_1": (_q5_1, 24), "Q8_0": (_q8_0, 34), "Q2_K": (_q2_k, 84),
    "Q3_K": (_q3_k, 110), "Q4_K": (_q4_k, 144), "Q5_K": (_q5_k, 176), "Q6_K": (_q6_k, 210), "IQ4_NL": (_iq4_nl, 18),
    "IQ4_XS": (_iq4_xs, 136), "MXFP4": (_mxfp4, 17),
}  # fmt: skip


def _half(blocks: Tensor, offset: int) -> Tensor:
    """Return the float16 at ``offset`` of each block, as float32 ``(num_blocks, 1)``."""
    return blocks[:, offset : offset + 2].contiguous().view(torch.float16).float()


def _planes(packed: Tensor, width: int) -> Tensor:
    """Return, of ``(…, n)`` bytes, all their lowest ``width`` bits, then all their next, and so on: ``(…, n * 8 / width)``."""
    return torch.cat([packed >> shift & (1 << width) - 1 for shift in range(0, 8, width)], dim=-1)


def _fields(packed: Tensor, width: int) -> Tensor:
    """Return, of ``(…, n)`` bytes, one after the other cut into ``width`` bits, the lowest first: ``(…, n * 8 / width)``."""
    return torch.stack([packed >> shift & (1 << width) - 1 for shift in range(0, 8, width)], dim=-1).flatten(-2)


def _k_scales(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Return scales and minima of the 8 groups of a Q4_K or Q5_K block: 6 bits each, the last four's upper two beside the first four."""
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat((first & 63, third & 15 | first >> 6 << 4), dim=1)
    minima = torch.cat((second & 63, third >> 4 | second >> 6 << 4), dim=1)
    return _half(blocks, 0) * scales, -_half(blocks, 2) * minima
