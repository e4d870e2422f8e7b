"""Attention of single tokens to their contexts in blocks, each context split over the GPU (Flash-Decoding, Dao et al. 2023)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from handlers.engine.attention import Scoring
from handlers.engine.gpu.kernels.online_softmax import ScoreScale, attend_tile
from handlers.engine.gpu.kernels.tiling import combine_warps, decode_tiling

_FEWEST_KEYS = 256
"""A split: fewer are read faster than their part is combined with the others."""
_MOST_SPLITS = 64
"""A power of 2. One variant of ``_combine`` takes any number up to it: a request would wait for others to be compiled."""


def choose_num_splits(num_rows: int, num_kv_heads: int, max_context: int, num_multiprocessors: int) -> int:
    """Return into how many parts to split each context so that two programs a multiprocessor are at work, but none has too few keys."""
    num_programs = max(num_rows * num_kv_heads, 1)
    wanted = -(-2 * num_multiprocessors // num_programs)
    return max(min(wanted, max_context // _FEWEST_KEYS, _MOST_SPLITS), 1)


def decode_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_table: Tensor,
    context_lens: Tensor,
    scoring: Scoring,
    *,
    num_splits: int,
    scales: Tensor | None = None,
) -> Tensor:
    """Return ``(num_rows, num_heads, head_dim)``: row i of ``query``, of that shape, attends to the keys 0 to ``context_lens[i] - 1``.

    ``keys`` and ``values`` are ``(num_blocks, block_tokens, num_kv_heads, head_dim)`` with the same strides and contiguous heads, in the
    query's dtype or FP8 (e4m3) with ``scales``, float32 ``(2,)``, that multiply keys and values. ``block_table`` ``(num_rows, max_blocks)``
    and ``context_lens`` ``(num_rows,)`` are int32; a row without a context is padding, and zeros. A context is read in ``num_splits``
    parts at once, 64 at most, whatever its length, so that a CUDA graph of the call holds for other contexts.
    """
    num_rows, num_heads, head_dim = query.shape
    num_kv_heads, num_repeats = keys.shape[2], num_heads // keys.shape[2]
    dims = triton.next_power_of_2(head_dim)
    score, tiling = ScoreScale.of(scoring, head_dim), decode_tiling(dims, query.element_size())
    output = torch.empty(num_rows, num_heads, head_dim, dtype=query.dtype, device=query.device)
    parts, logs = output[:, :, None], None
    if num_splits > 1:
        parts = torch.empty(num_rows, num_heads, num_splits, head_dim, dtype=torch.float32, device=query.device)
        logs = torch.empty(num_rows, num_heads, num_splits, dtype=torch.float32, device=query.device)
    _attend_to_part[(num_rows, num_kv_heads, num_splits)](
        query,
        keys,
        values,
        block_table,
        context_lens,
        parts,
        logs,
        scales,
        query.stride(0),
        query.stride(1),
        *keys.stride()[:3],
        block_table.stride(0),
        score.scale,
        score.cap,
        WINDOW=scoring.window,
        NUM_REPEATS=num_repeats,
        HEAD_DIM=head_dim,
        DIMS=dims,
        ROWS=max(triton.next_power_of_2(num_repeats), 16),  # a tensor core multiplies at least 16 rows
        KEYS=tiling.num_keys,
        BLOCK_TOKENS=keys.shape[1],
        UPCAST=query.device.type == "cpu",
        num_warps=tiling.num_warps,
        num_stages=tiling.num_stages,
    )
    if num_splits > 1:
        _combine[(num_rows, num_heads)](
            parts,
            logs,
            output,
            num_splits,
            HEAD_DIM=head_dim,
            DIMS=dims,
            SPLITS=_MOST_SPLITS,
            num_warps=combine_warps(dims),
        )
    return output


# What differs between steps must not ask for another variant of the kernel.
@triton.jit(do_not_specialize=["table_stride"], do_not_specialize_on_alignment=["block_table", "context_lens", "scales"])
def _attend_to_part(
    query,
    keys,
    values,
    block_table,
    context_lens,
    parts,
    logs,
    scales,
    row_stride,
    head_stride,
    block_stride,
    token_stride,
    kv_head_stride,
    table_stride,
    scale,
    cap,
    WINDOW: tl.constexpr,
    NUM_REPEATS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIMS: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """A program takes the query heads that share a key head, as rows of one tile, and one part of the context."""
    row, kv_head, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    num_parts = tl.num_programs(2)
    context = tl.load(context_lens + row)
    start = 0
    if WINDOW is not None:
        start = tl.maximum(context - WINDOW, 0)
    part_keys = tl.cdiv(tl.cdiv(context - start, num_parts), KEYS) * KEYS
    start += part * part_keys
    end = tl.minimum(start + part_keys, context)

    repeats, dims = tl.arange(0, ROWS), tl.arange(0, DIMS)
    heads = kv_head * NUM_REPEATS + repeats
    is_head = (repeats < NUM_REPEATS)[:, None] & (dims < HEAD_DIM)[None, :]
    rows = tl.load(query + row * row_stride + heads[:, None] * head_stride + dims[None, :], mask=is_head, other=0.0)
    if scales is not None:
        scale *= tl.load(scales)
    weighted = tl.zeros([ROWS, DIMS], tl.float32)
    totals = tl.zeros([ROWS], tl.float32)
    maxima = tl.full([ROWS], float("-inf"), tl.float32)
    for tile_start in range(start, end, KEYS):
        positions = tile_start + tl.arange(0, KEYS)
        weighted, totals, maxima = attend_tile(
            weighted,
            totals,
            maxima,
            rows,
            keys + kv_head * kv_head_stride,
            values + kv_head * kv_head_stride,
            block_table + row * table_stride,
            positions,
            (positions < end)[None, :],
            end,
            block_stride,
            token_stride,
            scale,
            cap,
            HEAD_DIM,
            DIMS,
            BLOCK_TOKENS,
            UPCAST,
        )

    totals = tl.where(totals == 0.0, 1.0, totals)  # a part without keys is zeros
    weighted = weighted / totals[:, None]
    if scales is not None:
        weighted *= tl.load(scales + 1)
    places = (row * tl.num_programs(1) * NUM_REPEATS + heads) * num_parts + part
    tl.store(parts + places[:, None] * HEAD_DIM + dims[None, :], weighted, mask=is_head)
    if logs is not None:
        tl.store(logs + places, maxima + tl.log2(totals), mask=repeats < NUM_REPEATS)


@triton.jit(do_not_specialize=["num_splits"])
def _combine(parts, logs, output, num_splits, HEAD_DIM: tl.constexpr, DIMS: tl.constexpr, SPLITS: tl.constexpr):
    """A program weighs the parts of one head by the logarithms, in base 2, of their softmax's sums."""
    head = tl.program_id(0).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    splits, dims = tl.arange(0, SPLITS), tl.arange(0, DIMS)
    sums = tl.load(logs + head * num_splits + splits, mask=splits < num_splits, other=float("-inf"))
    largest = tl.max(sums, axis=0)
    weights = tl.exp2(sums - tl.where(largest == float("-inf"), 0.0, largest))
    total = tl.sum(weights, axis=0)
    is_part = (splits < num_splits)[:, None] & (dims < HEAD_DIM)[None, :]
    values = tl.load(parts + (head * num_splits + splits)[:, None] * HEAD_DIM + dims[None, :], mask=is_part, other=0.0)
    combined = tl.sum(values * weights[:, None], axis=0) / tl.where(total == 0.0, 1.0, total)
    tl.store(output + head * HEAD_DIM + dims, combined, mask=dims < HEAD_DIM)
