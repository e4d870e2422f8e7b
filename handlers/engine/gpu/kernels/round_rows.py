"""Inputs of a layer in FP8 (E4M3), each row with a scale of its own: one pass over memory instead of five."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from handlers.engine.gpu.kernels.tiling import row_warps

_LARGEST = tl.constexpr(448.0)
_SMALLEST = tl.constexpr(1e-12)


def round_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return contiguous ``rows`` ``(num_rows, width)`` in FP8, and float32 scales ``(num_rows, 1)``; see ``fp8_linear.round_rows``."""
    num_rows, width = rows.shape
    rounded = torch.empty(num_rows, width, dtype=torch.float8_e4m3fn, device=rows.device)
    scales = torch.empty(num_rows, 1, dtype=torch.float32, device=rows.device)
    columns = triton.next_power_of_2(width)
    _round_row[(num_rows,)](rows, rounded, scales, width, rows.stride(0), WIDTH=columns, num_warps=row_warps(columns))
    return rounded, scales


@triton.jit
def _round_row(rows, rounded, scales, width, row_stride, WIDTH: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    is_column = columns < width
    value = tl.load(rows + row * row_stride + columns, mask=is_column, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(value), axis=0), _SMALLEST) / _LARGEST
    tl.store(scales + row, scale)
    tl.store(rounded + row * width + columns, (value / scale).to(rounded.dtype.element_ty), mask=is_column)
