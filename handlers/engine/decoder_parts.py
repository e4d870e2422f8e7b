"""The parts of a Llama-like decoder, taken out of transformers' modules: what a forward pass of our own needs, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from handlers.engine.attention import Scoring
from handlers.engine.weight_memory import weight_bytes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_FAMILIES = frozenset({"llama", "mistral", "qwen2", "qwen3", "phi3"})
"""Pre-norm, RMS norms, rotary positions over the whole head, SiLU gate, one residual stream: families that differ in nothing else."""


@dataclass(frozen=True)
class LayerParts:
    """One layer. ``qkv`` and ``gate_up`` are the linear modules whose outputs stand side by side: several, or one that is fused already."""

    input_norm: Tensor
    qkv: tuple[nn.Module, ...]
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: nn.Module
    post_norm: Tensor
    gate_up: tuple[nn.Module, ...]
    down: nn.Module
    scoring: Scoring


@dataclass(frozen=True)
class DecoderParts:
    """A whole decoder. ``cosines`` and ``sines`` are float32 ``(max_model_len, head_dim)``, the second half a copy of the first."""

    layers: tuple[LayerParts, ...]
    embedding: Tensor  # (vocab_size, hidden)
    final_norm: Tensor
    head: nn.Module
    cosines: Tensor
    sines: Tensor
    norm_eps: float
    num_heads: int
    num_kv_heads: int
    head_dim: int
    weight_bytes: int  # of the whole model


@torch.inference_mode()
def take_apart(model: PreTrainedModel, scorings: Sequence[Scoring], max_model_len: int) -> DecoderParts | None:
    """Return the parts of ``model``, or None if it is of another kind. ``scorings`` of its layers are what ``compatibility.adopt`` saw."""
    config: Any = model.config
    decoder: Any = getattr(model, "model", None)
    if config.model_type not in _FAMILIES or getattr(config, "hidden_act", None) != "silu":
        return None
    positions = torch.arange(max_model_len, device=model.device)[None]
    cosines, sines = decoder.rotary_emb(torch.zeros(1, device=model.device), positions)
    attention = decoder.layers[0].self_attn
    if cosines.shape[-1] != attention.head_dim:
        return None  # rotary positions over a part of the head
    return DecoderParts(
        layers=tuple(_layer(layer, scoring) for layer, scoring in zip(decoder.layers, scorings, strict=True)),
        embedding=decoder.embed_tokens.weight,
        final_norm=decoder.norm.weight,
        head=model.get_output_embeddings(),
        cosines=cosines[0],
        sines=sines[0],
        norm_eps=config.rms_norm_eps,
        num_heads=config.num_attention_heads,
        num_kv_heads=config.num_key_value_heads,
        head_dim=attention.head_dim,
        weight_bytes=weight_bytes(model),
    )


def _layer(layer: Any, scoring: Scoring) -> LayerParts:
    attention, mlp = layer.self_attn, layer.mlp
    is_fused = hasattr(attention, "qkv_proj")
    return LayerParts(
        input_norm=layer.input_layernorm.weight,
        qkv=(attention.qkv_proj,) if is_fused else (attention.q_proj, attention.k_proj, attention.v_proj),
        query_norm=attention.q_norm.weight if hasattr(attention, "q_norm") else None,
        key_norm=attention.k_norm.weight if hasattr(attention, "k_norm") else None,
        output=attention.o_proj,
        post_norm=layer.post_attention_layernorm.weight,
        gate_up=(mlp.gate_up_proj,) if hasattr(mlp, "gate_up_proj") else (mlp.gate_proj, mlp.up_proj),
        down=mlp.down_proj,
        scoring=scoring,
    )
