"""One tile of paged keys and values, attended to with an online softmax (FlashAttention-2, Dao 2023): what all attention kernels repeat."""

from __future__ import annotations

import math
from dataclasses import dataclass

import triton
import triton.language as tl

from handlers.engine.attention import Scoring

_LOG2_E = math.log2(math.e)


@dataclass(frozen=True, slots=True)
class ScoreScale:
    """``Scoring`` in the kernels' terms: a logit in base 2 is ``scale * dot``, or with a cap ``cap * tanh(dot * scale / 2 / log2(e))``."""

    scale: float
    cap: float | None

    @classmethod
    def of(cls, scoring: Scoring, head_dim: int) -> ScoreScale:
        """Fold what is the same for all keys into one factor, so that a key costs one multiplication, and a power of 2 for e."""
        scale = head_dim**-0.5 if scoring.scale is None else scoring.scale
        if scoring.softcap is None:
            return cls(scale * _LOG2_E, None)
        return cls(2 * scale * _LOG2_E / scoring.softcap, scoring.softcap * _LOG2_E)


@triton.jit
def attend_tile(
    weighted,  # (ROWS, DIMS) float32: sums of values, weighted by powers of 2 relative to the maxima
    totals,  # (ROWS,) float32: sums of these weights
    maxima,  # (ROWS,) float32: the largest logits so far, in base 2
    query,  # (ROWS, DIMS)
    keys,
    values,
    block_table,  # of this sequence
    positions,  # (KEYS,)
    is_visible,  # (ROWS or 1, KEYS), or None: all are
    num_keys,
    block_stride,
    token_stride,
    scale,
    cap,
    HEAD_DIM: tl.constexpr,
    DIMS: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """Return the three sums with the keys at ``positions`` added, those that are visible; the ones from ``num_keys`` on do not exist."""
    dims = tl.arange(0, DIMS)
    exists = positions < num_keys
    blocks = tl.load(block_table + positions // BLOCK_TOKENS, mask=exists, other=0).to(tl.int64)
    tokens = blocks * block_stride + (positions % BLOCK_TOKENS) * token_stride
    # What a former owner left behind the last key may be NaN, which a weight of 0 would not stop: it is never loaded.
    is_loaded = exists[:, None] & (dims < HEAD_DIM)[None, :]
    key = tl.load(keys + tokens[:, None] + dims[None, :], mask=is_loaded, other=0.0).to(query.dtype)
    logits = _dot(query, tl.trans(key), UPCAST) * scale
    if cap is not None:
        logits = cap - 2 * cap / (1 + tl.exp2(logits))
    if is_visible is not None:
        logits = tl.where(is_visible, logits, float("-inf"))

    new_maxima = tl.maximum(maxima, tl.max(logits, axis=1))
    origin = tl.where(new_maxima == float("-inf"), 0.0, new_maxima)  # a row that sees nothing yet
    weights = tl.exp2(logits - origin[:, None])
    shrink = tl.exp2(maxima - origin)
    value = tl.load(values + tokens[:, None] + dims[None, :], mask=is_loaded, other=0.0).to(query.dtype)
    weighted = weighted * shrink[:, None] + _dot(weights.to(query.dtype), value, UPCAST)
    return weighted, totals * shrink + tl.sum(weights, axis=1), new_maxima


@triton.jit
def _dot(left, right, UPCAST: tl.constexpr):
    if UPCAST:  # Triton's interpreter multiplies the bits of bfloat16
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")
