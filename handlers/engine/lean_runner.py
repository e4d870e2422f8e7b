"""A Llama-like decoder's forward pass without transformers' modules around it: fewer, larger operations, tables made once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from handlers.engine.attention import StepAttention
from handlers.engine.decoder_parts import DecoderParts, LayerParts
from handlers.engine.paged_cache import KVShape, PagedCache
from handlers.engine.scheduler import StepPlan
from handlers.engine.step_layout import StepLayout, lay_out


class LeanRunner:
    """A Runner over the linear modules of a decoder, whatever they are: plain ones are fused where they share their input."""

    def __init__(self, parts: DecoderParts, *, num_blocks: int, block_tokens: int) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.max_model_len: int = parts.cosines.shape[0]
        self.vocab_size: int = parts.embedding.shape[0]
        self._parts = parts
        dtype, device = parts.embedding.dtype, parts.embedding.device
        self._cosines, self._sines = parts.cosines.to(dtype), parts.sines.to(dtype)
        self._qkv = [_beside(layer.qkv) for layer in parts.layers]
        self._gate_up = [_beside(layer.gate_up) for layer in parts.layers]
        shape = KVShape(parts.num_kv_heads, parts.head_dim, parts.head_dim)
        self._cache = PagedCache([shape] * len(parts.layers), num_blocks, block_tokens, dtype, device)

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> Tensor:
        """Compute a step; see Runner."""
        layout = lay_out(plan, self.block_tokens, self._parts.embedding.device)
        self._cache.begin(layout)
        hidden = self._decode(layout)[layout.sampling]
        hidden = self._normalize(hidden, self._parts.final_norm)
        logits: Tensor = self._parts.head(hidden).float()
        return logits

    @torch.inference_mode()
    def reset(self) -> None:
        """Forget all sequences; see Runner."""
        self._cache.clear()

    def _decode(self, layout: StepLayout) -> Tensor:
        """Return the residual stream after the last layer.  # (num_tokens, hidden)"""
        parts, attention = self._parts, StepAttention(self._cache, layout)
        positions = layout.positions[0]
        rotation = self._cosines[positions][:, None], self._sines[positions][:, None]  # (num_tokens, 1, head_dim)
        residual = functional.embedding(layout.token_ids[0], parts.embedding)
        for index, layer in enumerate(parts.layers):
            normed = self._normalize(residual, layer.input_norm)
            query, key, value = self._heads(layer, self._qkv[index](normed), rotation)
            attended = attention.attend(index, query, key, value, layer.scoring)
            residual = residual + layer.output(attended.flatten(1))
            gate, up = self._gate_up[index](self._normalize(residual, layer.post_norm)).chunk(2, dim=-1)
            residual = residual + layer.down(functional.silu(gate) * up)
        return residual

    def _heads(self, layer: LayerParts, qkv: Tensor, rotation: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return query, key and value, ``(1, num_heads, num_tokens, head_dim)`` each."""
        parts = self._parts
        heads = qkv.view(len(qkv), -1, parts.head_dim)
        query, key, value = torch.split(heads, [parts.num_heads, parts.num_kv_heads, parts.num_kv_heads], dim=1)
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = self._normalize(query, layer.query_norm), self._normalize(key, layer.key_norm)
        query, key = _rotate(query, *rotation), _rotate(key, *rotation)
        return query.transpose(0, 1)[None], key.transpose(0, 1)[None], value.transpose(0, 1)[None]

    def _normalize(self, values: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(values, weight.shape, weight, self._parts.norm_eps)


def _rotate(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn each pair of dimensions (i, i + half) by the angle of its position (RoFormer, Su et al. 2021)."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat((-second, first), dim=-1) * sines


def _beside(modules: tuple[nn.Module, ...]) -> Callable[[Tensor], Tensor]:
    """Return one function for modules with one input. The fused weight replaces theirs, which become views of it: nothing is kept twice."""
    if len(modules) == 1:
        return modules[0]
    if not all(type(module) is nn.Linear for module in modules):
        return lambda inputs: torch.cat([module(inputs) for module in modules], dim=-1)
    weight = _fuse([module.get_parameter("weight") for module in modules])
    bias = _fuse([module.get_parameter("bias") for module in modules]) if modules[0].bias is not None else None
    return lambda inputs: functional.linear(inputs, weight, bias)


def _fuse(parameters: list[nn.Parameter]) -> Tensor:
    fused = torch.cat([parameter.data for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = fused[start : start + len(parameter)]
        start += len(parameter)
    return fused
