"""Whatever stands in a config.json, there are facts, or one line that says what is wrong: never anything else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.plan.model.computed import compute_facts
from archiver.plan.model.facts import ModelFacts
from archiver.plan.model.families import FAMILIES
from archiver.plan.model.settings import SYNONYMS, Settings

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 128,
}
KEYS = sorted(
    {*SIZES, *SYNONYMS, *(key for family in FAMILIES.values() for key in family.defaults), *(f for f in ("kv_lora_rank", "moe_layers"))}
    | {"dtype", "architectures", "quantization_config", "text_config", "vision_config", "no_rope_layers", "hybrid_override_pattern"}
)
SCALARS = st.none() | st.booleans() | st.integers(-2, 10) | st.integers() | st.floats() | st.text(max_size=5)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=6
)


def some_of(keys: Iterable[str], **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return an object with ``fixed`` keys and any values under some of the others."""
    return st.tuples(st.fixed_dictionaries(fixed), st.dictionaries(st.sampled_from(sorted(keys)), VALUES, max_size=4)).map(
        lambda parts: parts[0] | parts[1]
    )


CONFIGURATIONS = some_of(KEYS, model_type=st.sampled_from([*sorted(FAMILIES), "new"]))
WEIGHTS = some_of({"num_bits", "group_size", "strategy", "block_structure", "symmetric", "actorder", "type"})
GROUPS = st.dictionaries(st.text(max_size=2), st.fixed_dictionaries({"weights": WEIGHTS | VALUES}) | VALUES, max_size=2)
QUANTIZATIONS = some_of(
    {"bits", "group_size", "q_group_size", "w_bit", "weight_block_size", "load_in_4bit", "bnb_4bit_use_double_quant", "quant_type"},
    quant_method=st.sampled_from(["gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8", "fbgemm_fp8", "mxfp4", "torchao"]),
    config_groups=GROUPS,
)  # fmt: skip
TOWERS = some_of(
    {"hidden_size", "intermediate_size", "num_hidden_layers", "depth", "image_size", "patch_size", "spatial_merge_size", "out_hidden_size"},
    model_type=st.sampled_from(["siglip_vision_model", "clip_vision_model", "pixtral", "llama4_vision_model", "qwen2_vl", "qwen2_5_vl",
                                "qwen3_vl", "new"]),
)  # fmt: skip


def check(config: dict[str, Any]) -> None:
    try:
        facts = compute_facts(Settings(config, "config.json"), "model")
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert isinstance(facts, ModelFacts)
        assert facts.weight_bytes >= 0
        assert facts.sequence_bytes(10, 2) >= 0


@given(CONFIGURATIONS)
@settings(max_examples=300, deadline=None)
def test_of_any_family(config: dict[str, Any]) -> None:
    check(SIZES | config)


@given(QUANTIZATIONS)
@settings(max_examples=200, deadline=None)
def test_of_any_quantization(quantization: dict[str, Any]) -> None:
    check(SIZES | {"model_type": "llama", "quantization_config": quantization})


@given(TOWERS)
@settings(max_examples=200, deadline=None)
def test_of_any_tower(tower: dict[str, Any]) -> None:
    check(SIZES | {"model_type": "llama", "vision_config": tower})
