"""Models for tests of the planner, built by hand from published sizes: what is tested must not be what made the input."""

from __future__ import annotations

from archiver.plan.model.facts import CacheLayer, ModelFacts, Role, WeightGroup
from handlers.quant.formats import PLAIN


def decoder(
    name: str = "llama-3.1-8b",
    *,
    layers: int = 32,
    hidden: int = 4096,
    heads: int = 32,
    kv_heads: int = 8,
    head_dim: int = 128,
    intermediate: int = 14336,
    vocab: int = 128256,
    max_model_len: int = 131072,
    cache: tuple[CacheLayer, ...] | None = None,
) -> ModelFacts:
    """Return a Llama-like decoder in bfloat16 with an LM head of its own; by default Llama-3.1-8B."""
    elements = {
        Role.EMBEDDING: vocab * hidden,
        Role.HEAD: vocab * hidden,
        Role.NORM: (2 * layers + 1) * hidden,
        Role.QUERY: layers * hidden * heads * head_dim,
        Role.KEY_VALUE: layers * hidden * 2 * kv_heads * head_dim,
        Role.OUTPUT: layers * hidden * heads * head_dim,
        Role.MLP: layers * 3 * hidden * intermediate,
    }
    return ModelFacts(
        name=name,
        architecture="LlamaForCausalLM",
        model_type="llama",
        num_layers=layers,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocab,
        max_model_len=max_model_len,
        dtype="bfloat16",
        dtype_bytes=2,
        format=PLAIN,
        group_size=None,
        num_experts=0,
        num_active_experts=0,
        weights=tuple(WeightGroup(role, count, 2 * count) for role, count in elements.items()),
        cache=cache or (CacheLayer("full", kv_heads, 2 * head_dim),) * layers,
        num_active_elements=sum(elements.values()) - elements[Role.EMBEDDING],
        is_exact=True,
    )


LLAMA_8B = decoder()
LLAMA_70B = decoder("llama-3.1-70b", layers=80, hidden=8192, heads=64, kv_heads=8, intermediate=28672)
