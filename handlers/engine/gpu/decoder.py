"""A Llama-like decoder's forward pass in fused kernels; it never waits for the device, so that it can be captured in a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engine.attention import Scoring
from handlers.engine.decoder_parts import DecoderParts, LayerParts
from handlers.engine.gpu.kernels.rms_norm import add_rms_norm, rms_norm
from handlers.engine.gpu.kernels.rotary_write import rotate_and_write
from handlers.engine.gpu.kernels.silu_multiply import silu_multiply
from handlers.engine.gpu.kv_blocks import KVBlocks
from handlers.engine.gpu.linear import beside_on_gpu
from handlers.engine.gpu.paged_attention import PagedAttention
from handlers.engine.gpu.step_input import StepInput
from handlers.engine.linear import Linear


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer, ready to be computed. ``next_norm`` is the input norm of the layer after it, or the decoder's final one."""

    qkv: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Linear
    post_norm: Tensor
    gate_up: Linear
    down: Linear
    next_norm: Tensor
    scoring: Scoring

    @classmethod
    def of(cls, parts: LayerParts, next_norm: Tensor) -> _Layer:
        return cls(
            beside_on_gpu(parts.qkv),
            parts.query_norm,
            parts.key_norm,
            beside_on_gpu([parts.output]),
            parts.post_norm,
            beside_on_gpu(parts.gate_up),
            beside_on_gpu([parts.down]),
            next_norm,
            parts.scoring,
        )


class GpuDecoder:
    """The weights, and what is computed with them. Linear layers are whatever they are: plain ones are fused, quantized ones called."""

    def __init__(self, parts: DecoderParts, blocks: KVBlocks) -> None:
        self._blocks = blocks
        self._embedding, self._head = parts.embedding, beside_on_gpu([parts.head])
        self._first_norm = parts.layers[0].input_norm
        norms = [*(layer.input_norm for layer in parts.layers[1:]), parts.final_norm]
        self._layers = [_Layer.of(layer, next_norm) for layer, next_norm in zip(parts.layers, norms, strict=True)]
        self._cosines, self._sines = parts.cosines, parts.sines
        self._norm_eps = parts.norm_eps
        self._num_heads = parts.num_heads

    def logits(self, step: StepInput[Tensor], attention: PagedAttention, drawn: Tensor | None) -> Tensor:
        """Compute all tokens, keep their keys and values, and return the logits after ``step.sampling``.  # (num_logits, vocab_size)

        ``drawn`` ``(num_drawn,)`` are the tokens that ``step`` does not know; None where it knows all.
        """
        token_ids = step.token_ids if drawn is None else fill_in(step.token_ids, drawn)
        residual = functional.embedding(token_ids, self._embedding)
        normed = rms_norm(residual, self._first_norm, self._norm_eps)
        places = step.places.long()
        for layer, (keys, values) in zip(self._layers, self._blocks.layers, strict=True):
            query = rotate_and_write(
                layer.qkv(normed),
                self._cosines,
                self._sines,
                step.positions,
                places,
                keys,
                values,
                num_heads=self._num_heads,
                query_norm=layer.query_norm,
                key_norm=layer.key_norm,
                eps=self._norm_eps,
                scales=self._blocks.scales,
            )
            attended = attention.attend(query, keys, values, layer.scoring, self._blocks.scales)
            normed = add_rms_norm(residual, layer.output(attended.flatten(1)), layer.post_norm, self._norm_eps)
            update = layer.down(silu_multiply(layer.gate_up(normed)))
            normed = add_rms_norm(residual, update, layer.next_norm, self._norm_eps)
        return self._head(normed.index_select(0, step.sampling))


def fill_in(token_ids: Tensor, drawn: Tensor) -> Tensor:
    """Return ``token_ids`` with those that stand as ``-1 - r`` replaced by ``drawn[r]``, or by 0 where that is no token either."""
    late = drawn.index_select(0, (-1 - token_ids).clamp_min_(0))
    return torch.where(token_ids < 0, late, token_ids).clamp_min_(0)
