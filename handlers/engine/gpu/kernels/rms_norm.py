"""RMS norm (Zhang and Sennrich 2019), alone or of a sum that becomes the new residual stream: one pass over memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from handlers.engine.gpu.kernels.tiling import row_warps


def rms_norm(values: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return ``values`` ``(num_tokens, hidden)``, each row divided by its root mean square, times ``weight`` ``(hidden,)``.

    Rows are contiguous. Float32 inside, rounded once.
    """
    return _normalize(values, None, weight, eps)


def add_rms_norm(residual: Tensor, update: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Add ``update`` to ``residual`` in place, and return the sum normalized as by ``rms_norm``: all ``(num_tokens, hidden)``.

    The sum is rounded to the residual's dtype before it is normalized.
    """
    return _normalize(residual, update, weight, eps)


def _normalize(values: Tensor, update: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    num_tokens, hidden = values.shape
    normed = torch.empty(num_tokens, hidden, dtype=values.dtype, device=values.device)
    width, strides = triton.next_power_of_2(hidden), (values.stride(0), 0 if update is None else update.stride(0))
    _rms_norm[(num_tokens,)](values, update, weight, normed, hidden, *strides, eps, WIDTH=width, num_warps=row_warps(width))
    return normed


@triton.jit
def _rms_norm(values, update, weight, normed, hidden, row_stride, update_stride, eps, WIDTH: tl.constexpr):
    row, columns = tl.program_id(0).to(tl.int64), tl.arange(0, WIDTH)
    is_column = columns < hidden
    value = tl.load(values + row * row_stride + columns, mask=is_column, other=0.0)
    if update is not None:
        added = tl.load(update + row * update_stride + columns, mask=is_column, other=0.0)
        value = (value.to(tl.float32) + added.to(tl.float32)).to(value.dtype)
        tl.store(values + row * row_stride + columns, value, mask=is_column)
    value = value.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(value * value, axis=0) / hidden + eps)
    factor = tl.load(weight + columns, mask=is_column, other=0.0).to(tl.float32)
    tl.store(normed + row * hidden + columns, value * inverse * factor, mask=is_column)
