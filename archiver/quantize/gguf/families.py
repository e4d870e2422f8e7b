"""The model families that are converted, and their sizes in GGUF's words.

Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What llama.cpp leaves unsaid in a file (which layers slide, how attention
is scaled) it knows from the architecture's name, so a model that differs there is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from archiver.errors import UsageError

Metadata = dict[str, int | float | bool | str]


@dataclass(frozen=True)
class Family:
    """What llama.cpp makes of a model type of transformers', under the name ``architecture``.

    ``interleaves_rotary``: it rotates neighbours (0, 1), (2, 3) … of a head where transformers rotates (0, n/2), (1, n/2+1) …, so the rows
    of the query and key projections have to change places. ``norm_offset``: the model multiplies by this plus the stored norm.
    ``window_period``: every so many-th layer sees all, those before it a window; 0: llama.cpp knows no window in this architecture.
    """

    architecture: str
    activation: str = "silu"
    interleaves_rotary: bool = False
    norm_offset: float = 0.0
    window_period: int = 0


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": Family("llama", interleaves_rotary=True),
        "mistral": Family("llama", interleaves_rotary=True),
        "qwen2": Family("qwen2"),
        "qwen3": Family("qwen3"),
        "smollm3": Family("smollm3", interleaves_rotary=True),
        "phi3": Family("phi3"),
        "gemma2": Family("gemma2", activation="gelu_pytorch_tanh", norm_offset=1.0, window_period=2),
        "gemma3_text": Family("gemma3", activation="gelu_pytorch_tanh", norm_offset=1.0, window_period=6),
    }
)


def find_family(model_type: str) -> Family:
    """Return the family of a config.json's ``model_type``; raise UsageError if it is none of ours."""
    if model_type not in FAMILIES:
        raise UsageError(f"GGUF files are written for {', '.join(FAMILIES)}, not for {model_type}; use another recipe")
    return FAMILIES[model_type]


def head_size(config: Any) -> int:
    """Return the columns of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def describe_sizes(config: Any, family: Family, num_tokens: int) -> Metadata:
    """Return the keys, without the architecture before them, for a transformers configuration and a vocabulary of ``num_tokens``."""
    _check(config, family)
    sizes: Metadata = {
        "vocab_size": num_tokens,
        "context_length": _context_length(config, family),
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": head_size(config),
        "attention.value_length": head_size(config),
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps),
    }
    if family.window_period:
        sizes |= {"attention.sliding_window": config.sliding_window} | _soft_caps(config)
    return sizes


def _context_length(config: Any, family: Family) -> int:
    """Where llama.cpp would attend to all, the window is as far as the model may go: up to there both see the same."""
    window = None if family.window_period else getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    return min(config.max_position_embeddings, window) if window and slides else int(config.max_position_embeddings)


def _soft_caps(config: Any) -> Metadata:
    caps = {"attn_logit_softcapping": config.attn_logit_softcapping, "final_logit_softcapping": config.final_logit_softcapping}
    return {key: float(cap) for key, cap in caps.items() if cap is not None}


def _check(config: Any, family: Family) -> None:
    activation = getattr(config, "hidden_act", None) or config.hidden_activation
    if activation != family.activation:
        raise UsageError(f"llama.cpp computes {config.model_type} with {family.activation}, and this model uses {activation}")
    if family.window_period:
        _check_gemma(config, family)
    if family.architecture == "smollm3" and config.no_rope_layers != [int((i + 1) % 4 != 0) for i in range(config.num_hidden_layers)]:
        raise UsageError("llama.cpp leaves positions out of every fourth layer of SmolLM3, and this model of others (no_rope_layers)")


def _check_gemma(config: Any, family: Family) -> None:
    period = family.window_period
    layers = ["full_attention" if (i + 1) % period == 0 else "sliding_attention" for i in range(config.num_hidden_layers)]
    if config.layer_types != layers:
        raise UsageError(f"llama.cpp lets every {period}th layer of {config.model_type} see all, and this model others (layer_types)")
    if config.query_pre_attn_scalar != head_size(config):
        raise UsageError(
            f"llama.cpp scales attention by head_dim, and this model by {config.query_pre_attn_scalar} (query_pre_attn_scalar)"
        )
    if getattr(config, "use_bidirectional_attention", False):
        raise UsageError("llama.cpp lets tokens see those before them only, and this model all (use_bidirectional_attention)")
