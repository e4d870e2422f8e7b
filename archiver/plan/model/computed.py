"""Facts of a model from its config.json alone."""

from __future__ import annotations

from dataclasses import replace

from archiver.errors import UsageError
from archiver.plan.model.attention import read_head_dim, read_kv_heads
from archiver.plan.model.facts import CacheLayer, ModelFacts, Role
from archiver.plan.model.families import FAMILIES, LIKE_LLAMA
from archiver.plan.model.feed_forward import dense_width, expert_width
from archiver.plan.model.layer_kinds import read_num_layers
from archiver.plan.model.parameters import model_parts
from archiver.plan.model.scheme import Scheme, find_scheme
from archiver.plan.model.settings import Settings
from archiver.plan.model.storage import DTYPE_BYTES, active_elements, stored_groups
from archiver.plan.model.towers import read_towers
from archiver.plan.model.weights import Weight
from handlers.errors import ConfigError
from handlers.quant.quantization_config import find_quantization

_TEXT_SECTIONS = ("text_config", "llm_config", "language_config")
_DEFAULT_DTYPE = "float32"  # what transformers loads when neither the configuration nor anybody says


def compute_facts(whole: Settings, name: str) -> ModelFacts:
    """Return the facts; raises UsageError, which names file and key, for a configuration that lacks what is needed.

    ``whole`` is the configuration of a language model, or of a multimodal one, with its language model in a section.
    """
    text = language_model(whole)
    model_type = str(text.get("model_type") or "")
    family = FAMILIES.get(model_type)
    parts = list(model_parts(text, family or LIKE_LLAMA))
    towers = list(read_towers(whole, text.number("hidden_size")))
    dtype, scheme = read_dtype(whole), read_scheme(whole)
    weights = [weight for part in parts for weight in part.weights()] + [Weight(Role.VISION, tower.num_elements) for tower in towers]
    groups = stored_groups(weights, DTYPE_BYTES[dtype], scheme)
    num_experts = text.number("num_experts", 0)
    num_active_experts = text.number("num_experts_per_tok", 0) if num_experts else 0
    cache = tuple(_with_state_bytes(layer, DTYPE_BYTES[dtype]) for part in parts for layer in part.cache())
    attends = any(layer.kind != "state" for layer in cache)
    return ModelFacts(
        name=name,
        architecture=_architecture(whole),
        model_type=model_type,
        num_layers=read_num_layers(text),
        hidden_size=text.number("hidden_size"),
        intermediate_size=expert_width(text) if num_experts else dense_width(text),
        num_heads=text.number("num_attention_heads") if attends else 0,
        num_kv_heads=read_kv_heads(text) if attends else 0,
        head_dim=read_head_dim(text) if attends else 0,
        vocab_size=text.number("vocab_size"),
        max_model_len=text.number("max_position_embeddings", 0) or None,
        dtype=dtype,
        dtype_bytes=DTYPE_BYTES[dtype],
        format=scheme.format,
        group_size=scheme.group_size,
        num_experts=num_experts,
        num_active_experts=num_active_experts,
        weights=groups,
        cache=cache,
        num_active_elements=active_elements(
            groups, text.number("vocab_size") * text.number("hidden_size"), num_experts, num_active_experts
        ),
        is_exact=False,
        is_multimodal=bool(towers),
        is_known=family is not None and all(tower.is_known for tower in towers),
    )


def language_model(whole: Settings) -> Settings:
    """Return the settings of the language model, with what its family assumes where they are silent."""
    section = _text_section(whole)
    text = section or whole
    family = FAMILIES.get(str(text.get("model_type") or ""), LIKE_LLAMA)
    tied = whole.get("tie_word_embeddings")
    if section and tied is not None:  # the whole model's word holds
        text = replace(text, values={**text.values, "tie_word_embeddings": tied})
    return text.with_defaults(family.defaults)


def read_dtype(whole: Settings) -> str:
    """Return the dtype that the configuration names; raises UsageError for one that nothing is computed in."""
    sections = [whole, _text_section(whole)]
    named = [section.get(key) for section in sections if section for key in ("dtype", "torch_dtype")]
    dtype = str(next((name for name in named if name), _DEFAULT_DTYPE)).removeprefix("torch.")
    if dtype not in DTYPE_BYTES:
        raise UsageError(f"{whole.origin} has {dtype!r} as dtype, which must be one of {', '.join(DTYPE_BYTES)}")
    return dtype


def read_scheme(whole: Settings) -> Scheme:
    """Return how the configuration says that weights are stored; raises UsageError for a format that no machine serves."""
    try:
        return find_scheme(find_quantization(whole.values))
    except ConfigError as error:
        raise UsageError(f"{whole.origin}: {error}") from None


def _text_section(whole: Settings) -> Settings | None:
    return next((section for name in _TEXT_SECTIONS if (section := whole.section(name))), None)


def _architecture(whole: Settings) -> str:
    names = whole.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def _with_state_bytes(layer: CacheLayer, dtype_bytes: int) -> CacheLayer:
    """States are kept in the model's dtype, also where keys and values are in FP8."""
    return replace(layer, state_bytes=layer.state_bytes or dtype_bytes) if layer.kind == "state" else layer
