"""The table of model families, by ``model_type``: what their config.json leaves unsaid.

Facts from the published configurations and transformers' model definitions, against which a test checks every row.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from archiver.plan.model.family import Family
from archiver.plan.model.settings import Settings

_TIED = {"tie_word_embeddings": True}
LIKE_LLAMA = Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias")
"""Also what a family that is not in the table is taken for."""


def find_family(model_type: str) -> Family | None:
    """Return the family's row; None for one that is not in the table."""
    return _FAMILIES.get(model_type)


def _falcon_norms(settings: Settings) -> int:
    """The newer ones norm attention and MLP apart though they run side by side."""
    if not settings.flag("parallel_attn"):
        return 2
    return settings.number("num_ln_in_parallel_attn", 2 if settings.flag("new_decoder_architecture") else 1)


def _stablelm_norms(settings: Settings) -> int:
    return 1 if settings.flag("use_parallel_residual") else 2


_QWEN_WINDOW = {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 28}
_QWEN3 = Family(
    {**_QWEN_WINDOW, "head_dim": 128, "num_key_value_heads": 32}, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm="head"
)
_GEMMA = {**_TIED, "head_dim": 256}
_GPT2 = Family(_TIED, norm_vectors=2, qkv_bias=True, out_bias=True, is_gated=False, mlp_bias=True, positions=0)
_BIASED_QKV = Family(qkv_bias="attention_bias")

_FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "llama": LIKE_LLAMA,
        "mistral": Family({"num_key_value_heads": 8, "sliding_window": 4096}),
        "qwen2": Family(_QWEN_WINDOW, qkv_bias=True),
        "qwen3": _QWEN3,
        "gemma": Family(_GEMMA, qkv_bias="attention_bias", out_bias="attention_bias"),
        "granite": LIKE_LLAMA,
        "phi3": Family(),
        "gpt2": _GPT2,
    }
)
