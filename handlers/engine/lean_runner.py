"""A Llama-like decoder's forward pass without transformers' modules around it: fewer, larger operations, tables made once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engine.attention import Scoring, StepAttention
from handlers.engine.decoder_parts import DecoderParts, LayerParts
from handlers.engine.linear import Linear, beside
from handlers.engine.paged_cache import KVShape, PagedCache
from handlers.engine.scheduler import StepPlan
from handlers.engine.step_layout import StepLayout, lay_out


@dataclass(frozen=True)
class _Layer:
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

    @classmethod
    def of(cls, parts: LayerParts) -> _Layer:
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
        )


class LeanRunner:
    """A Runner over the linear layers of a decoder, whatever they are: plain ones are copied and packed, quantized ones called."""

    def __init__(self, parts: DecoderParts, *, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.max_model_len: int = parts.cosines.shape[0]
        self.vocab_size: int = parts.embedding.shape[0]
        self.weight_bytes = parts.weight_bytes
        dtype, device = parts.embedding.dtype, parts.embedding.device
        self._embedding, self._head, self._final_norm = parts.embedding, beside([parts.head]), parts.final_norm
        self._layers = [_Layer.of(layer) for layer in parts.layers]
        self._cosines, self._sines = parts.cosines.to(dtype), parts.sines.to(dtype)
        self._norm_eps = parts.norm_eps
        self._head_dim = parts.head_dim
        self._num_heads = [parts.num_heads, parts.num_kv_heads, parts.num_kv_heads]  # of queries, keys, values
        shape = KVShape(parts.num_kv_heads, parts.head_dim, parts.head_dim)
        self._cache = PagedCache([shape] * len(parts.layers), num_blocks, block_tokens, dtype, device)

    @property
    def kv_bytes(self) -> int:
        """What the blocks take; see Runner."""
        return self._cache.nbytes

    def resize(self, num_blocks: int, max_model_len: int) -> None:
        """Have other blocks; see ResizableRunner. The tables of positions stay as long as they were."""
        self.num_blocks, self.max_model_len = num_blocks, max_model_len
        self._cache.resize(num_blocks)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> Tensor:
        """Compute a step; see Runner."""
        layout = lay_out(plan, self.block_tokens, self._embedding.device, most_blocks=self.num_blocks)
        self._cache.begin(layout)
        hidden = self._decode(layout)[layout.sampling]
        return self._head(self._normalize(hidden, self._final_norm)).float()

    def reset(self) -> None:
        """Forget all sequences; see Runner. A block is cleared when its next owner begins it."""

    def _decode(self, layout: StepLayout) -> Tensor:
        """Return the residual stream after the last layer.  # (num_tokens, hidden)"""
        attention = StepAttention(self._cache, layout)
        positions = layout.positions[0]
        rotation = self._cosines[positions][:, None], self._sines[positions][:, None]  # (num_tokens, 1, head_dim)
        residual = functional.embedding(layout.token_ids[0], self._embedding)
        for index, layer in enumerate(self._layers):
            normed = self._normalize(residual, layer.input_norm)
            query, key, value = self._heads(layer, layer.qkv(normed), rotation)
            attended = attention.attend(index, query, key, value, layer.scoring)
            residual = residual + layer.output(attended.flatten(1))
            gate, up = layer.gate_up(self._normalize(residual, layer.post_norm)).chunk(2, dim=-1)
            residual = residual + layer.down(functional.silu(gate) * up)
        return residual

    def _heads(self, layer: _Layer, qkv: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, ``(1, num_heads, num_tokens, head_dim)`` each."""
        query, key, value = torch.split(qkv.view(len(qkv), -1, self._head_dim), self._num_heads, dim=1)
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = self._normalize(query, layer.query_norm), self._normalize(key, layer.key_norm)
        query, key = _rotate(query, *rotation), _rotate(key, *rotation)
        return query.transpose(0, 1)[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None]

    def _normalize(self, values: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(values, weight.shape, weight, self._norm_eps)


def _rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of dimensions (i, i + half) by the angle of its position (RoFormer, Su et al. 2021)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat((-second, first), dim=-1) * sines
