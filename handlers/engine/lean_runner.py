"""A Llama-like decoder's forward pass without transformers' modules around it: tables made once, layers that may be exchanged."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from handlers.engine.decoder_parts import DecoderParts
from handlers.engine.lean_layers import LeanLayer, LeanLayers, Rotation
from handlers.engine.linear import beside
from handlers.engine.paged_cache import PagedCache
from handlers.engine.scheduler import StepPlan
from handlers.engine.step_layout import StepLayout, lay_out


class Layers(Protocol):
    """What computes all layers of a decoder: LeanLayers, or something faster that gives the same."""

    def advance(self, residual: Tensor, rotation: Rotation, layout: StepLayout, cache: PagedCache) -> Tensor:
        """Return the residual stream after the last layer; see LeanLayers."""
        ...


class LeanRunner:
    """A Runner over the linear layers of a decoder, whatever they are: plain ones are copied and packed, quantized ones called.

    ``layers`` may be exchanged at any time, by any thread: a step is computed by those that it finds.
    """

    def __init__(self, parts: DecoderParts, *, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.max_model_len: int = parts.cosines.shape[0]
        self.vocab_size: int = parts.embedding.shape[0]
        self.weight_bytes = parts.weight_bytes
        dtype, device = parts.embedding.dtype, parts.embedding.device
        self._embedding, self._head, self._final_norm = parts.embedding, beside([parts.head]), parts.final_norm
        self._cosines, self._sines = parts.cosines.to(dtype), parts.sines.to(dtype)
        self._norm_eps = parts.norm_eps
        layers = tuple(LeanLayer.of(layer, parts) for layer in parts.layers)
        self.layers: Layers = LeanLayers(layers)
        self._cache = PagedCache([layer.kv_shape for layer in layers], num_blocks, block_tokens, dtype, device)

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
        positions = layout.positions[0]
        rotation = self._cosines[positions][:, None], self._sines[positions][:, None]
        residual = functional.embedding(layout.token_ids[0], self._embedding)
        hidden = self.layers.advance(residual, rotation, layout, self._cache)[layout.sampling]
        return self._head(functional.rms_norm(hidden, self._final_norm.shape, self._final_norm, self._norm_eps)).float()

    def reset(self) -> None:
        """Forget all sequences; see Runner. A block is cleared when its next owner begins it."""
