"""The attention of one step, in place of a model's own: write the new keys and values, then attend to the blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engine.paged_cache import PagedCache
from handlers.engine.step_layout import StepLayout


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a layer scores a key: ``scale`` (None: the square root of its dimension), keys at most ``window`` back, soft cap (Gemma 2)."""

    scale: float | None = None
    window: int | None = None
    softcap: float | None = None


class Attention(Protocol):
    """What every layer of a model hands its attention to."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Return ``(num_tokens, num_query_heads, value_dim)``; the inputs are ``(1, num_heads, num_tokens, dim)``."""
        ...


@dataclass(frozen=True, slots=True)
class StepAttention:
    """The Attention of one step over the blocks: one operation a group of sequences and layer."""

    cache: PagedCache
    layout: StepLayout

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring) -> Tensor:
        """Keep the new keys and values, and attend; see Attention."""
        self.cache.write(layer, self.layout, key[0].transpose(0, 1), value[0].transpose(0, 1))
        num_heads, num_kv_heads = query.shape[1], key.shape[1]
        num_repeats = num_heads // num_kv_heads
        outputs = []
        for group in self.layout.groups:
            keys, values = self.cache.context(layer, group)
            mask = group.mask(scoring.window, num_repeats, query.dtype)
            # Query heads that share a key head become rows of one matrix: keys are read once and never repeated.
            folded = query[0, :, group.tokens].reshape(num_heads, group.num_sequences, group.num_queries, -1).transpose(0, 1)
            folded = folded.reshape(group.num_sequences, num_kv_heads, num_repeats * group.num_queries, -1)
            attended = _attend(folded, keys, values, mask, scoring)
            attended = attended.reshape(group.num_sequences, num_heads, group.num_queries, -1)
            outputs.append(attended.transpose(1, 2).flatten(0, 1))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scoring: Scoring) -> Tensor:
    if scoring.softcap is None:
        return functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scoring.scale)
    scale = query.shape[-1] ** -0.5 if scoring.scale is None else scoring.scale
    scores = torch.tanh(query @ keys.transpose(2, 3) * (scale / scoring.softcap)) * scoring.softcap + mask
    return scores.softmax(dim=-1, dtype=torch.float32).to(values.dtype) @ values
