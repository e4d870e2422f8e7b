"""The gate of a Llama-like MLP (SwiGLU, Shazeer 2020) over a fused gate and up projection."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from handlers.engine.gpu.kernels.tiling import SILU_WIDTH


def silu_multiply(gate_up: Tensor) -> Tensor:
    """Return ``silu(gate) * up`` ``(num_tokens, width)`` of ``gate_up`` ``(num_tokens, 2 * width)``, gates first.

    Rows are contiguous. Float32 inside, rounded once.
    """
    num_tokens, width = gate_up.shape[0], gate_up.shape[1] // 2
    product = torch.empty(num_tokens, width, dtype=gate_up.dtype, device=gate_up.device)
    _silu_multiply[(num_tokens, triton.cdiv(width, SILU_WIDTH))](gate_up, product, width, gate_up.stride(0), WIDTH=SILU_WIDTH)
    return product


@triton.jit
def _silu_multiply(gate_up, product, width, row_stride, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    is_column = columns < width
    gate = tl.load(gate_up + row * row_stride + columns, mask=is_column, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * row_stride + width + columns, mask=is_column, other=0.0).to(tl.float32)
    tl.store(product + row * width + columns, gate * tl.sigmoid(gate) * up, mask=is_column)
