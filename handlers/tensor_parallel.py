"""How far a decoder can be divided among the ranks of tensor parallelism: by the numbers in its config.json, before anything is loaded.

Megatron-LM's scheme (Shoeybi et al. 2019): attention is cut by heads, the MLP by its inner columns. KV heads fewer than ranks are held by
several of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FAMILIES = frozenset(
    {"cohere", "gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "olmo", "phi3", "qwen2", "qwen3", "smollm3"}
)
"""Values of ``model_type``: decoders whose layers are q, k, v, o and gate, up, down, with nothing between them that needs all heads."""


def indivisible(num_ranks: int, *, num_heads: int, num_kv_heads: int, intermediate_size: int) -> str | None:
    """Say why ``num_ranks`` cannot share a decoder's layers; None if they can."""
    kv_heads = max(num_kv_heads, 1)
    if num_heads % num_ranks:
        return f"{num_ranks} does not divide {num_heads} attention heads"
    if kv_heads % num_ranks and num_ranks % kv_heads:
        return f"{num_ranks} does not divide {kv_heads} KV heads, nor they it"
    if intermediate_size % num_ranks:
        return f"{num_ranks} does not divide {intermediate_size} columns of the MLP"
    return None


def obstacle(config: Mapping[str, Any], num_ranks: int) -> str | None:
    """Say why ``num_ranks`` cannot share the model of a ``config.json``, and how many could; None if they can."""
    family = config.get("model_type")
    if family not in FAMILIES:
        return f"models of type {family} cannot be divided; those of type {', '.join(sorted(FAMILIES))} can"
    if unsaid := [name for name in ("num_attention_heads", "intermediate_size") if not isinstance(config.get(name), int)]:
        return f"config.json does not say {unsaid[0]}"
    reason = _indivisible(config, num_ranks)
    if reason is None:
        return None
    valid = [str(degree) for degree in range(1, config["num_attention_heads"] + 1) if _indivisible(config, degree) is None]
    return f"{reason}; valid are {', '.join(valid)}"


def vocabulary_rows(vocab_size: int, rank: int, num_ranks: int) -> slice[int, int]:
    """Return the tokens whose logits a rank computes: equally many each, but for the last ones. Any number of tokens can be divided so."""
    size = -(-vocab_size // num_ranks)
    return slice(min(rank * size, vocab_size), min((rank + 1) * size, vocab_size))


def _indivisible(config: Mapping[str, Any], num_ranks: int) -> str | None:
    num_heads = config["num_attention_heads"]
    num_kv_heads = config.get("num_key_value_heads") or num_heads
    return indivisible(num_ranks, num_heads=num_heads, num_kv_heads=num_kv_heads, intermediate_size=config["intermediate_size"])
