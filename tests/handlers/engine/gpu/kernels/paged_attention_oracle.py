"""Attention over paged keys and values, one query at a time in float64."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from handlers.engine.attention import Scoring


def attend_one(query: Tensor, keys: Tensor, values: Tensor, blocks: Sequence[int], num_keys: int, scoring: Scoring) -> Tensor:
    """Return ``(num_heads, head_dim)``: a query of that shape attends to the first keys of a sequence that lies in ``blocks``."""
    num_heads, head_dim = query.shape
    first = 0 if scoring.window is None else max(num_keys - scoring.window, 0)
    num_repeats = num_heads // keys.shape[2]
    key, value = (
        cache.float().double()[list(blocks)].flatten(0, 1)[first:num_keys].repeat_interleave(num_repeats, dim=1) for cache in (keys, values)
    )
    scores = torch.einsum("hd,khd->hk", query.double(), key) * (head_dim**-0.5 if scoring.scale is None else scoring.scale)
    if scoring.softcap is not None:
        scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
    return torch.einsum("hk,khd->hd", scores.softmax(dim=-1), value)
