"""Published models: their facts agree with what was published, with transformers' own model, and with what small copies really keep."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from archiver.plan.model.facts import CacheLayer, ModelFacts
from archiver.plan.model.source import read_model
from tests.archiver.plan.model.oracle import build, build_meta, count_elements, read_tokens
from tests.archiver.plan.model.shrinking import WINDOW, shrink

FILES = {file.stem: file for file in sorted((Path(__file__).parent / "configs").glob("*.json"))}
MODELS: dict[str, Any] = {name: json.loads(file.read_text()) for name, file in FILES.items()}
SHRUNKEN = {name: shrink(model["config"]) for name, model in MODELS.items()}
UNLIKE = {json.dumps(config, sort_keys=True): name for name, config in SHRUNKEN.items()}.values()
"""One of each kind: many models differ in sizes only."""

REPEATS_HEADS = {"falcon-40b"}
"""transformers keeps a copy of each KV head for every query that reads it; other engines do not."""


def facts_of(config: dict[str, Any], directory: Path) -> ModelFacts:
    (directory / "config.json").write_text(json.dumps(config))
    return read_model(directory)


def test_there_are_enough_of_them() -> None:
    assert len(MODELS) >= 40
    assert len({model["config"]["model_type"] for model in MODELS.values()}) >= 30


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_model(name: str, tmp_path: Path) -> None:
    model, facts = MODELS[name], facts_of(MODELS[name]["config"], tmp_path)
    assert facts.num_elements == model["parameters"] == count_elements(build_meta(model["config"]))
    assert facts.weight_bytes == facts.num_elements * facts.dtype_bytes
    assert facts.is_known
    assert facts.is_multimodal == ("vision_config" in model["config"])


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model["published_parameters"]])
def test_parameters_are_the_published_ones(name: str) -> None:
    said = MODELS[name]["published_parameters"]
    number, scale = float(said[:-1]), {"M": 1e6, "B": 1e9, "T": 1e12}[said[-1]]
    digits = len(said.partition(".")[2].rstrip("MBT"))
    assert MODELS[name]["parameters"] / scale == pytest.approx(number, abs=0.51 * 10**-digits)


@pytest.mark.parametrize("name", MODELS)
def test_bytes_of_a_token(name: str, tmp_path: Path) -> None:
    assert facts_of(MODELS[name]["config"], tmp_path).kv_bytes_per_token(2) == MODELS[name]["kv_bytes_per_token_bf16"]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODELS.keys() - REPEATS_HEADS - {"gemma-3n-e4b-text"}))  # which computes no shapes without data
def test_bytes_of_a_token_are_those_that_the_whole_model_keeps(name: str) -> None:
    with torch.device("meta"):
        kept = read_tokens(build_meta(MODELS[name]["config"]), 1)
    assert 2 * sum(tensor.numel() for tensor in kept.keys_values) == MODELS[name]["kv_bytes_per_token_bf16"]


@pytest.mark.parametrize("name", sorted(set(UNLIKE) - REPEATS_HEADS))
def test_a_small_copy_keeps_as_much_as_is_said(name: str, tmp_path: Path) -> None:
    config = SHRUNKEN[name] | {"torch_dtype": "float32"}
    facts = facts_of(config, tmp_path)
    model = build(config, dtype=torch.float32).eval()
    assert facts.num_elements == count_elements(model)
    said = replace(facts, cache=tuple(map(_as_transformers_keeps_it, facts.cache)))
    for num_tokens in (WINDOW - 2, 3 * WINDOW):
        assert said.sequence_bytes(num_tokens, 4) == read_tokens(model, num_tokens).num_bytes


@pytest.mark.parametrize("name", ["deepseek-v2-lite", "deepseek-v3"])
def test_an_engine_without_latents_keeps_what_they_expand_to(name: str, tmp_path: Path) -> None:
    """Our continuous engine is handed keys and values by the model, when they are computed already."""
    from handlers.engine.compatibility import adopt

    adoption = adopt(build(SHRUNKEN[name], dtype=torch.float32).eval())
    layers = facts_of(SHRUNKEN[name], tmp_path).cache
    assert [layer.expanded_elements for layer in layers] == [shape.elements for shape in adoption.kv_shapes]


def _as_transformers_keeps_it(layer: CacheLayer) -> CacheLayer:
    """Of a window it keeps one token less: the newest is handed to the layer with its query."""
    return replace(layer, window=layer.window - 1) if layer.window else layer
