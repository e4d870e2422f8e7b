"""The layers of a Llama-like decoder as functions of tensors, without transformers' modules around them: fewer, larger operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engine.attention import Attention, Scoring, StepAttention
from handlers.engine.decoder_parts import DecoderParts, LayerParts
from handlers.engine.linear import Linear, beside
from handlers.engine.paged_cache import KVShape, PagedCache
from handlers.engine.step_layout import StepLayout

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines of the rows' angles, ``(num_tokens, 1, head_dim)`` each."""


@dataclass(frozen=True)
class LeanLayer:
    """One layer, ready to be computed."""

    input_norm: Tensor
    qkv: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Linear
    post_norm: Tensor
    gate_up: Linear
    down: Linear
    scoring: Scoring
    norm_eps: float
    num_heads: int
    num_kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, parts: LayerParts, decoder: DecoderParts) -> LeanLayer:
        """Take over the weights of one of a decoder's layers; its modules see the same memory."""
        return cls(
            parts.input_norm,
            beside(parts.qkv),
            parts.query_norm,
            parts.key_norm,
            beside([parts.output]),
            parts.post_norm,
            beside(parts.gate_up),
            beside([parts.down]),
            parts.scoring,
            decoder.norm_eps,
            decoder.num_heads,
            decoder.num_kv_heads,
            decoder.head_dim,
        )

    @property
    def kv_shape(self) -> KVShape:
        """What it keeps of a token."""
        return KVShape(self.num_kv_heads, self.head_dim, self.head_dim)

    def advance(self, residual: Tensor, rotation: Rotation, attention: Attention, index: int) -> Tensor:
        """Return the residual stream ``(num_tokens, hidden)`` after this layer, the ``index``-th of the ``attention``."""
        query, key, value = self._heads(self.qkv(self._normalize(residual, self.input_norm)), rotation)
        attended = attention.attend(index, query, key, value, self.scoring)
        residual = residual + self.output(attended.flatten(1))
        gate, up = self.gate_up(self._normalize(residual, self.post_norm)).chunk(2, dim=-1)
        return residual + self.down(functional.silu(gate) * up)

    def _heads(self, qkv: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, ``(1, num_heads, num_tokens, head_dim)`` each."""
        counts = [self.num_heads, self.num_kv_heads, self.num_kv_heads]
        query, key, value = torch.split(qkv.view(qkv.shape[0], -1, self.head_dim), counts, dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self._normalize(query, self.query_norm), self._normalize(key, self.key_norm)
        query, key = _rotate(query, *rotation), _rotate(key, *rotation)
        return query.transpose(0, 1)[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None]

    def _normalize(self, values: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(values, weight.shape, weight, self.norm_eps)


@dataclass(frozen=True)
class LeanLayers:
    """All of them, one after the other."""

    layers: tuple[LeanLayer, ...]

    def advance(self, residual: Tensor, rotation: Rotation, layout: StepLayout, cache: PagedCache) -> Tensor:
        """Return the residual stream ``(num_tokens, hidden)`` after the last layer; the keys and values are in ``cache`` then."""
        attention = StepAttention(cache, layout)
        for index, layer in enumerate(self.layers):
            residual = layer.advance(residual, rotation, attention, index)
        return residual


def _rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of dimensions (i, i + half) by the angle of its position (RoFormer, Su et al. 2021)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat((-second, first), dim=-1) * sines
