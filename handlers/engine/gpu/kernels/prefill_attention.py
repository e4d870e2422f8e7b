"""Attention of prompt chunks to themselves and to what is cached before them, all in blocks (FlashAttention-2, Dao 2023)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from handlers.engine.attention import Scoring
from handlers.engine.gpu.kernels.online_softmax import ScoreScale, attend_tile
from handlers.engine.gpu.kernels.tiling import prefill_tiling


def prefill_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    block_table: Tensor,
    query_starts: Tensor,
    context_lens: Tensor,
    max_query_len: int,
    scoring: Scoring,
    *,
    scales: Tensor | None = None,
) -> Tensor:
    """Return ``(num_tokens, num_heads, head_dim)``, as ``query``: each token attends to the keys up to its own, which are written already.

    Chunk c has the tokens ``query_starts[c]`` to ``query_starts[c + 1] - 1``, at most ``max_query_len``; they are the last of its
    ``context_lens[c]`` positions, whose blocks are row c of ``block_table``. All three are int32: ``(num_chunks + 1,)``,
    ``(num_chunks,)`` and ``(num_chunks, max_blocks)``. Tokens of no chunk are left undefined. The rest is as in ``decode_attention``.
    """
    num_tokens, num_heads, head_dim = query.shape
    dims = triton.next_power_of_2(head_dim)
    score, tiling = ScoreScale.of(scoring, head_dim), prefill_tiling(dims, query.element_size())
    output = torch.empty(num_tokens, num_heads, head_dim, dtype=query.dtype, device=query.device)
    _attend_to_prefix[(triton.cdiv(max_query_len, tiling.num_queries), len(context_lens), num_heads)](
        query,
        keys,
        values,
        block_table,
        query_starts,
        context_lens,
        output,
        scales,
        query.stride(0),
        query.stride(1),
        *keys.stride()[:3],
        block_table.stride(0),
        score.scale,
        score.cap,
        WINDOW=scoring.window,
        NUM_REPEATS=num_heads // keys.shape[2],
        HEAD_DIM=head_dim,
        DIMS=dims,
        ROWS=tiling.num_queries,
        KEYS=tiling.num_keys,
        BLOCK_TOKENS=keys.shape[1],
        UPCAST=query.device.type == "cpu",
        num_warps=tiling.num_warps,
        num_stages=tiling.num_stages,
    )
    return output


# What differs between steps must not ask for another variant of the kernel.
@triton.jit(
    do_not_specialize=["table_stride"],
    do_not_specialize_on_alignment=["block_table", "query_starts", "context_lens", "scales"],
)
def _attend_to_prefix(
    query,
    keys,
    values,
    block_table,
    query_starts,
    context_lens,
    output,
    scales,
    token_stride,
    head_stride,
    block_stride,
    key_stride,
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
    """A program takes one head of consecutive tokens of a chunk; the last ones, which have most to read, are begun first."""
    tile, chunk, head = tl.num_programs(0) - 1 - tl.program_id(0), tl.program_id(1), tl.program_id(2)
    query_start = tl.load(query_starts + chunk)
    num_queries = tl.load(query_starts + chunk + 1) - query_start
    first = tile * ROWS
    if first >= num_queries:
        return
    kv_head, context = head // NUM_REPEATS, tl.load(context_lens + chunk)
    before = context - num_queries
    rows, dims = first + tl.arange(0, ROWS), tl.arange(0, DIMS)
    is_query = (rows < num_queries)[:, None] & (dims < HEAD_DIM)[None, :]
    tokens = (query_start + rows).to(tl.int64)[:, None]
    tile_query = tl.load(query + tokens * token_stride + head * head_stride + dims[None, :], mask=is_query, other=0.0)
    if scales is not None:
        scale *= tl.load(scales)

    # Half-open: keys that some query of the tile sees, and among them those that all see, for which no mask is needed.
    start, end = 0, tl.minimum(before + first + ROWS, context)
    seen_by_all = (before + first + 1) // KEYS * KEYS
    if WINDOW is not None:
        start = tl.maximum(before + first + 1 - WINDOW, 0)
        seen_by_all = start
    weighted = tl.zeros([ROWS, DIMS], tl.float32)
    totals = tl.zeros([ROWS], tl.float32)
    maxima = tl.full([ROWS], float("-inf"), tl.float32)
    for IS_MASKED in tl.static_range(2):
        for tile_start in range(seen_by_all if IS_MASKED else start, end if IS_MASKED else seen_by_all, KEYS):
            positions = tile_start + tl.arange(0, KEYS)
            is_visible = None
            if IS_MASKED:
                distances = (before + rows)[:, None] - positions[None, :]
                is_visible = distances >= 0
                if WINDOW is not None:
                    is_visible &= distances < WINDOW
            weighted, totals, maxima = attend_tile(
                weighted,
                totals,
                maxima,
                tile_query,
                keys + kv_head * kv_head_stride,
                values + kv_head * kv_head_stride,
                block_table + chunk * table_stride,
                positions,
                is_visible,
                end,
                block_stride,
                key_stride,
                scale,
                cap,
                HEAD_DIM,
                DIMS,
                BLOCK_TOKENS,
                UPCAST,
            )

    weighted = weighted / tl.where(totals == 0.0, 1.0, totals)[:, None]
    if scales is not None:
        weighted *= tl.load(scales + 1)
    places = (tokens * tl.num_programs(2) + head) * HEAD_DIM + dims[None, :]
    tl.store(output + places, weighted, mask=is_query)
