"""The support matrix is consistent, and every row is recognised by what a checkpoint says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from handlers.config import QuantizationConfig
from handlers.quant import formats
from handlers.quant.formats import FORMATS, LOAD_RECIPES, Format
from handlers.quant.quantization_config import StoredQuantization
from handlers.quant.recognition import recognise

RECIPES = Path(__file__).parents[3] / "config" / "recipes"


def compressed(**weights: Any) -> dict[str, Any]:
    inputs = weights.pop("inputs", None)
    return {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}}}


KEYS = ("config_groups", "group_0", "weights", "input_activations", "num_bits", "type", "quant_type", "default", "_type", "load_in_4bit")
SIGNS: list[tuple[str, dict[str, Any], Format | None]] = [
    ("bitsandbytes", {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, formats.NF4),
    ("bitsandbytes", {"load_in_4bit": True}, formats.FP4),
    ("bitsandbytes", {"load_in_8bit": True}, formats.BNB_INT8),
    ("torchao", {"quant_type": "int8_weight_only"}, formats.TORCHAO_INT8),
    ("torchao", {"quant_type": {"default": {"_type": "Int8WeightOnlyConfig", "_version": 2}}}, formats.TORCHAO_INT8),
    ("torchao", {"quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}}, formats.TORCHAO_INT4),
    ("torchao", {"quant_type": {"default": {"_type": "IntxWeightOnlyConfig", "weight_dtype": "int4"}}}, formats.TORCHAO_INT4),
    ("torchao", {"quant_type": {"default": {"_type": "Float8WeightOnlyConfig"}}}, formats.TORCHAO_FP8),
    ("torchao", {"quant_type": {"default": {"_type": "SomethingNewConfig"}}}, None),
    ("compressed-tensors", compressed(type="int", num_bits=4, symmetric=True), formats.W4A16),
    ("compressed-tensors", compressed(type="int", num_bits=4, symmetric=False), formats.W4A16_ASYM),
    ("compressed-tensors", compressed(type="int", num_bits=8), formats.W8A16),
    ("compressed-tensors", compressed(type="int", num_bits=8, inputs={"num_bits": 8}), formats.W8A8),
    ("compressed-tensors", compressed(type="float", num_bits=8, inputs={"num_bits": 8}), formats.CT_FP8),
    ("compressed-tensors", compressed(type="int", num_bits=3), formats.W4A16),
    ("compressed-tensors", compressed(type="float", num_bits=4), None),
    ("fbgemm_fp8", {}, formats.FBGEMM_FP8),
    ("compressed-tensors", {}, None),
    ("gptq", {"bits": 4}, formats.GPTQ),
    ("awq", {"bits": 4}, formats.AWQ),
    ("fp8", {"weight_block_size": [128, 128]}, formats.FINE_GRAINED_FP8),
    ("mxfp4", {}, formats.MXFP4),
    ("hqq", {}, formats.HQQ),
    ("quanto", {}, formats.QUANTO),
    ("exl3", {}, None),
]


@pytest.mark.parametrize(("method", "settings", "row"), SIGNS)
def test_a_checkpoint_says_which_row_it_is(method: str, settings: dict[str, Any], row: Format | None) -> None:
    assert recognise(StoredQuantization(method, settings)) is row


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.sampled_from(KEYS), children, max_size=4),
)


@given(st.sampled_from([method for method, *_ in SIGNS]), st.dictionaries(st.sampled_from(KEYS), JSON))
def test_nonsense_is_no_format_but_no_crash_either(method: str, settings: dict[str, Any]) -> None:
    recognise(StoredQuantization(method, settings))


def test_every_row_is_recognised_by_something() -> None:
    assert {row.name for row in FORMATS} - {row.name for _, _, row in SIGNS if row} == {formats.PLAIN.name, formats.GGUF.name}


def test_names_are_unique_and_a_row_has_a_route_or_an_obstacle() -> None:
    assert len({row.name for row in FORMATS}) == len(FORMATS)
    for row in FORMATS:
        assert bool(row.cpu or row.cuda) != bool(row.obstacle), row.name


def test_recipes_at_load_are_those_of_the_configuration() -> None:
    assert {*LOAD_RECIPES, "none"} == set(get_args(get_type_hints(QuantizationConfig)["recipe"]))


def test_a_recipe_of_a_row_exists_and_makes_it() -> None:
    for row in FORMATS:
        if row.recipe:
            recipe = yaml.safe_load((RECIPES / f"{row.recipe.partition(':')[0]}.yaml").read_text())
            assert recipe["format"] == row.name
