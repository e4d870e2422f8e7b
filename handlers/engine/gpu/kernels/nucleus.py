"""The smallest weight that top-k and top-p keep of each row, found without sorting and without the host.

Bisection over the bits of the weights: of floats that are not negative, the bits as integers are in the same order. Each probe is a pass
over the row, which the second-level cache holds; sorting 128,000 numbers a row takes several times as many.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_WIDTH = 4096
"""Columns at once."""


def nucleus_thresholds(weights: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Return the smallest weight that each row keeps, ``(rows, 1)``: of its ``top_k`` largest those before which less than ``top_p`` lies.

    ``weights`` are float32 ``(rows, vocab_size)``, from 0 to 1, each row contiguous; ``top_k`` and ``top_p`` float32 ``(rows, 1)``: at
    least ``vocab_size`` and above 1 where they are off. Equal weights are all kept, the largest always. What comes of a row depends on that
    row alone.
    """
    rows, vocab_size = weights.shape
    thresholds = torch.empty(rows, 1, dtype=torch.float32, device=weights.device)
    if rows:
        _thresholds[(rows,)](
            weights, top_k.contiguous(), top_p.contiguous(), thresholds, weights.stride(0), vocab_size, WIDTH=_WIDTH, num_warps=16
        )
    return thresholds


# Where the second of two tables in one begins depends on the number of rows, which must not ask for another variant of the kernel.
@triton.jit(do_not_specialize_on_alignment=["top_k", "top_p"])
def _thresholds(weights, top_k, top_p, thresholds, row_stride, vocab_size, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    weights += row * row_stride
    k, p = tl.load(top_k + row), tl.load(top_p + row)
    one = tl.full((), 0x3F800000, tl.int32)  # the bits of 1.0, the largest weight there can be
    low, high = tl.full((), 0, tl.int32), one
    if k < vocab_size:
        while low < high:  # the largest bits that at least k weights reach
            middle = high - (high - low) // 2
            count, _ = _above(weights, middle - 1, vocab_size, WIDTH)
            low, high = tl.where(count >= k, middle, low), tl.where(count >= k, high, middle - 1)
    if p <= 1.0:
        count, mass = _above(weights, low, vocab_size, WIDTH)
        if k < vocab_size:  # of those that equal the k-th largest, as many as are among the k largest
            mass += (k - count) * low.to(tl.float32, bitcast=True)
        goal, high = p * mass, one
        while low < high:  # the smallest bits above which there is less than the goal
            middle = low + (high - low) // 2
            _, mass = _above(weights, middle, vocab_size, WIDTH)
            low, high = tl.where(mass < goal, low, middle + 1), tl.where(mass < goal, middle, high)
    tl.store(thresholds + row, low.to(tl.float32, bitcast=True))


@triton.jit
def _above(weights, bits, vocab_size, WIDTH: tl.constexpr):
    """Return how many weights have larger bits, and their sum."""
    counts, sums = tl.zeros((WIDTH,), tl.float32), tl.zeros((WIDTH,), tl.float32)
    for start in range(0, vocab_size, WIDTH):
        columns = start + tl.arange(0, WIDTH)
        weight = tl.load(weights + columns, mask=columns < vocab_size, other=0.0)
        is_above = weight.to(tl.int32, bitcast=True) > bits
        counts += is_above.to(tl.float32)
        sums += tl.where(is_above, weight, 0.0)
    return tl.sum(counts, axis=0), tl.sum(sums, axis=0)
