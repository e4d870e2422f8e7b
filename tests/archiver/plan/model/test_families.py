"""The table of families: every row agrees with transformers, also with whatever biases a configuration can ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from archiver.plan.model.computed import compute_facts
from archiver.plan.model.families import FAMILIES
from archiver.plan.model.settings import Settings
from tests.archiver.plan.model.oracle import count_elements

ROWS = sorted(name for name in FAMILIES if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not name.endswith(("_vl", "_vl_text")))
NUM_LAYERS = 8
FLAGS = ("attention_bias", "attention_out_bias", "mlp_bias", "bias", "qkv_bias", "use_bias", "use_qkv_bias", "enable_bias", "lm_head_bias",
         "use_qk_norm", "qk_layernorm", "conv_bias", "mamba_proj_bias", "projectors_bias", "tie_word_embeddings")  # fmt: skip
NEEDED: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [3]},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "hunyuan_v1_dense": {"head_dim": 128, "num_key_value_heads": 8},
    "ministral": {"head_dim": 128},
    "nemotron": {"head_dim": 128, "num_key_value_heads": 8},
    "gemma3n_text": {"num_kv_shared_layers": 2},
    "nemotron_h": {"tie_word_embeddings": False},  # transformers ties nothing there, whatever is said
}
"""What a class has no usable default for."""


def make(model_type: str, **values: Any) -> PreTrainedConfig:
    plain = CONFIG_MAPPING[model_type]()
    layers = [key for key in ("num_hidden_layers", "n_layer", "n_layers") if key in plain.to_dict()]
    few = {key: NUM_LAYERS for key in layers if model_type != "nemotron_h"}
    return CONFIG_MAPPING[model_type](**few | values | NEEDED.get(model_type, {}))


def computed_and_counted(config: PreTrainedConfig) -> tuple[int, int]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    values = json.loads(config.to_json_string(use_diff=False))
    return compute_facts(Settings(values, "config.json"), "model").num_elements, count_elements(model)


def test_most_rows_can_be_checked() -> None:
    assert len(ROWS) >= 50


@pytest.mark.parametrize("model_type", ROWS)
def test_a_row_agrees_with_transformers(model_type: str) -> None:
    computed, counted = computed_and_counted(make(model_type))
    assert computed == counted


@pytest.mark.parametrize("model_type", ROWS)
def test_and_with_every_flag_turned_over(model_type: str) -> None:
    plain = make(model_type)
    flags = {flag: not getattr(plain, flag) for flag in FLAGS if isinstance(getattr(plain, flag, None), bool)}
    computed, counted = computed_and_counted(make(model_type, **flags))
    assert computed == counted


def test_an_unknown_family_is_taken_for_a_llama(tmp_path: Path) -> None:
    llama = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    known = compute_facts(Settings(llama | {"model_type": "llama"}, "config.json"), "model")
    unknown = compute_facts(Settings(llama | {"model_type": "brand_new"}, "config.json"), "model")
    assert known.weights == unknown.weights
    assert known.is_known and not unknown.is_known
