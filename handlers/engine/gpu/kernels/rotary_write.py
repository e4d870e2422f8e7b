"""From a fused projection to attention's inputs: norms of heads, rotary positions, and the new keys and values in their blocks."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from handlers.engine.gpu.kernels.tiling import row_warps


def rotate_and_write(
    qkv: Tensor,
    cosines: Tensor,
    sines: Tensor,
    positions: Tensor,
    places: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    num_heads: int,
    query_norm: Tensor | None = None,
    key_norm: Tensor | None = None,
    eps: float = 0.0,
    scales: Tensor | None = None,
) -> Tensor:
    """Return the rotated queries ``(num_tokens, num_heads, head_dim)``, and write rotated keys and values to ``places``.

    ``qkv`` is ``(num_tokens, (num_heads + 2 * num_kv_heads) * head_dim)`` with contiguous rows; ``cosines`` and ``sines`` are
    ``(max_len, head_dim)``, the second half a copy of the first; ``positions`` ``(num_tokens,)`` are rows of them, also of padding.
    ``keys`` and ``values`` ``(num_blocks, block_tokens, num_kv_heads, head_dim)`` are contiguous; ``places`` ``(num_tokens,)`` int64
    count tokens over all blocks, and a negative one writes nothing. ``query_norm`` and ``key_norm`` ``(head_dim,)`` are the weights of
    RMS norms of each head (Qwen3). With ``scales``, float32 ``(2,)``, keys and values are divided by the first and second and clamped to
    what FP8 (e4m3) holds. Float32 inside, rounded once.
    """
    num_kv_heads, head_dim = keys.shape[2:]
    num_tokens, num_repeats = qkv.shape[0], num_heads // num_kv_heads
    rows, columns = triton.next_power_of_2(num_repeats), triton.next_power_of_2(head_dim // 2)
    query = torch.empty(num_tokens, num_heads, head_dim, dtype=qkv.dtype, device=qkv.device)
    _rotate_and_write[(num_tokens, num_kv_heads)](
        qkv,
        cosines,
        sines,
        positions,
        places,
        query,
        keys,
        values,
        query_norm,
        key_norm,
        scales,
        qkv.stride(0),
        eps,
        NUM_REPEATS=num_repeats,
        NUM_KV_HEADS=num_kv_heads,
        HALF=head_dim // 2,
        ROWS=rows,
        COLUMNS=columns,
        num_warps=row_warps(rows * columns),
    )
    return query


@triton.jit(do_not_specialize_on_alignment=["positions", "places", "scales"])
def _rotate_and_write(
    qkv,
    cosines,
    sines,
    positions,
    places,
    query,
    keys,
    values,
    query_norm,
    key_norm,
    scales,
    qkv_stride,
    eps,
    NUM_REPEATS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HALF: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """A program takes a token's key head and value head, and the query heads that share them."""
    token, kv_head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    columns = tl.arange(0, COLUMNS)[None, :]
    in_half = columns < HALF
    angles = tl.load(positions + token).to(tl.int64) * (2 * HALF) + columns
    cosine = tl.load(cosines + angles, mask=in_half, other=0.0).to(tl.float32)
    sine = tl.load(sines + angles, mask=in_half, other=0.0).to(tl.float32)

    rows = tl.arange(0, ROWS)[:, None]
    is_query = (rows < NUM_REPEATS) & in_half
    offsets = (kv_head * NUM_REPEATS + rows) * (2 * HALF) + columns
    first, second = _rotated(qkv + token * qkv_stride + offsets, is_query, query_norm, columns, in_half, cosine, sine, eps, HALF)
    into = query + token * (NUM_KV_HEADS * NUM_REPEATS * 2 * HALF) + offsets
    tl.store(into, first, mask=is_query)
    tl.store(into + HALF, second, mask=is_query)

    place = tl.load(places + token)
    if place >= 0:
        source = qkv + token * qkv_stride + (NUM_KV_HEADS * NUM_REPEATS + kv_head) * (2 * HALF) + columns
        into_cache = (place * NUM_KV_HEADS + kv_head) * (2 * HALF) + columns
        first_key, second_key = _rotated(source, in_half, key_norm, columns, in_half, cosine, sine, eps, HALF)
        _keep(keys + into_cache, first_key, second_key, in_half, scales, 0, HALF)
        source += NUM_KV_HEADS * 2 * HALF
        first_value = tl.load(source, mask=in_half, other=0.0).to(tl.float32)
        second_value = tl.load(source + HALF, mask=in_half, other=0.0).to(tl.float32)
        _keep(values + into_cache, first_value, second_value, in_half, scales, 1, HALF)


@triton.jit
def _rotated(heads, mask, norm, columns, in_half, cosine, sine, eps, HALF: tl.constexpr):
    """Turn each pair of dimensions (i, i + half) by the angle of its position (RoFormer, Su et al. 2021)."""
    first = tl.load(heads, mask=mask, other=0.0).to(tl.float32)
    second = tl.load(heads + HALF, mask=mask, other=0.0).to(tl.float32)
    if norm is not None:
        inverse = tl.rsqrt(tl.sum(first * first + second * second, axis=1, keep_dims=True) / (2 * HALF) + eps)
        first = first * inverse * tl.load(norm + columns, mask=in_half, other=0.0).to(tl.float32)
        second = second * inverse * tl.load(norm + HALF + columns, mask=in_half, other=0.0).to(tl.float32)
    return first * cosine - second * sine, second * cosine + first * sine


@triton.jit
def _keep(into, first, second, mask, scales, WHICH: tl.constexpr, HALF: tl.constexpr):
    if scales is not None:
        divisor = tl.load(scales + WHICH)
        first = tl.clamp(first / divisor, -448.0, 448.0)
        second = tl.clamp(second / divisor, -448.0, 448.0)
    tl.store(into, first.to(into.dtype.element_ty), mask=mask)
    tl.store(into + HALF, second.to(into.dtype.element_ty), mask=mask)
