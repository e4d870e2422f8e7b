"""GGUF files: layers of every kind, from metadata that has values for the model or for each layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from archiver.errors import UsageError
from archiver.plan.model.facts import CacheLayer, ModelFacts, Role
from archiver.plan.model.source import read_model
from tests.gguf_files import write_gguf

ATTENTION = ("attn_q", "attn_k", "attn_v", "attn_output")
SIZES = {"embedding_length": 64, "feed_forward_length": 96, "context_length": 512}
HEADS = {"attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16, "attention.value_length": 16}


def read(directory: Path, architecture: str, layers: list[tuple[str, ...]], sizes: dict[str, Any]) -> ModelFacts:
    """Write a file whose layers have tensors of these names, each of 64 by 64 elements, and read it."""
    metadata = {f"{architecture}.{key}": value for key, value in (SIZES | {"block_count": len(layers)} | sizes).items()}
    tensors = {f"blk.{layer}.{name}.weight": np.ones((64, 64), np.float32) for layer, names in enumerate(layers) for name in names}
    tensors["token_embd.weight"] = np.ones((10, 64), np.float32)
    vocabulary = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": tuple("abcdefghij")}
    return read_model(write_gguf(directory / "model.gguf", architecture, metadata | vocabulary, tensors, "Q8_0"))


def test_sizes_and_weights(tmp_path: Path) -> None:
    facts = read(tmp_path, "llama", [(*ATTENTION, "ffn_up", "ffn_down", "attn_norm")] * 3, HEADS)
    assert (facts.name, facts.architecture, facts.num_layers, facts.num_heads, facts.head_dim) == ("model", "llama", 3, 4, 16)
    assert (facts.vocab_size, facts.max_model_len, facts.intermediate_size) == (10, 512, 96)
    assert facts.cache == (CacheLayer("full", 2, 32),) * 3
    matrix = 64 * 64 * 34 // 32  # blocks of 32 codes and a scale
    assert {group.role: group.num_bytes for group in facts.weights} == {
        Role.EMBEDDING: 10 * 64 * 34 // 32, Role.QUERY: 3 * matrix, Role.KEY_VALUE: 6 * matrix, Role.OUTPUT: 3 * matrix,
        Role.MLP: 6 * matrix, Role.NORM: 3 * matrix,
    }  # fmt: skip
    assert facts.is_exact


def test_heads_of_each_layer(tmp_path: Path) -> None:
    heads = HEADS | {"attention.head_count": (4, 4, 8), "attention.head_count_kv": (2, 4, 1)}
    facts = read(tmp_path, "openelm", [ATTENTION] * 3, heads)
    assert [layer.num_heads for layer in facts.cache] == [2, 4, 1]
    assert (facts.num_heads, facts.num_kv_heads) == (8, 4)


def test_one_kv_head_for_each_query_where_nothing_is_said(tmp_path: Path) -> None:
    facts = read(tmp_path, "gptneox", [("attn_qkv",)] * 2, {"attention.head_count": 4})
    assert facts.cache == (CacheLayer("full", 4, 32),) * 2
    assert facts.role_bytes(Role.KEY_VALUE) == pytest.approx(2 * facts.role_bytes(Role.QUERY), rel=0.01)
    assert facts.role_bytes(Role.KEY_VALUE, Role.QUERY) == 2 * 64 * 64 * 34 // 32


@pytest.mark.parametrize(
    ("architecture", "said", "slides"),
    [
        ("gemma2", {"attention.sliding_window": 8}, [True, False, True, False]),
        ("gpt-oss", {"attention.sliding_window": 8}, [True, False, True, False]),
        ("cohere2", {"attention.sliding_window": 8}, [True, True, True, False]),
        ("llama4", {}, [True, True, True, False]),
        ("gemma3n", {"attention.sliding_window": 8, "attention.sliding_window_pattern": (True, False, True, True)},
         [True, False, True, True]),
        ("phi3", {"attention.sliding_window": 8}, [False] * 4),
        ("llama", {}, [False] * 4),
    ],
)  # fmt: skip
def test_windows(architecture: str, said: dict[str, Any], slides: list[bool], tmp_path: Path) -> None:
    facts = read(tmp_path, architecture, [ATTENTION] * 4, HEADS | said)
    assert [layer.kind == "sliding" for layer in facts.cache] == slides
    assert {layer.window for layer in facts.cache} - {None} <= {8, 8192}


def test_latent_attention(tmp_path: Path) -> None:
    """As files have it since April 2025: one KV head, and the sizes of the expanded ones apart."""
    sizes = {"attention.head_count": 4, "attention.head_count_kv": 1, "attention.kv_lora_rank": 32, "rope.dimension_count": 8,
             "attention.key_length": 40, "attention.key_length_mla": 24, "attention.value_length_mla": 16}  # fmt: skip
    facts = read(tmp_path, "deepseek2", [("attn_q_a", "attn_q_b", "attn_kv_a_mqa", "attn_k_b", "attn_v_b")], sizes)
    assert facts.cache == (CacheLayer("latent", 1, 40, expanded_elements=4 * (24 + 16)),)
    assert facts.role_bytes(Role.LATENT) == facts.role_bytes(Role.KEY_VALUE) == 2 * facts.role_bytes(Role.QUERY)


def test_mamba_keeps_states_in_float32(tmp_path: Path) -> None:
    """The first is Mamba's, the second Mamba-2's, whose convolution runs over its groups' inputs too."""
    sizes = {"ssm.inner_size": 128, "ssm.state_size": 16, "ssm.conv_kernel": 4, "ssm.time_step_rank": 4}
    first = read(tmp_path, "mamba", [("ssm_in", "ssm_conv1d", "ssm_out")] * 2, sizes)
    assert (first.num_heads, first.num_kv_heads, first.kv_bytes_per_token(2)) == (0, 0, 0)
    assert first.sequence_bytes(7, 2) == 2 * 4 * (3 * 128 + 128 * 16)
    second = read(tmp_path, "mamba2", [("ssm_in", "ssm_conv1d", "ssm_out")] * 2, sizes | {"ssm.group_count": 2})
    assert second.sequence_bytes(7, 2) == 2 * 4 * (3 * (128 + 2 * 2 * 16) + 128 * 16)
    assert {layer.num_heads for layer in second.cache} == {4}


def test_a_hybrid_has_what_its_tensors_say(tmp_path: Path) -> None:
    sizes = HEADS | {"attention.head_count_kv": (0, 2, 0), "shortconv.l_cache": 3}
    convolution = ("shortconv.conv", "shortconv.in_proj")
    facts = read(tmp_path, "lfm2", [convolution, ATTENTION, convolution], sizes)
    assert [layer.kind for layer in facts.cache] == ["state", "full", "state"]
    assert facts.cache[0].state_elements == 2 * 64


def test_experts(tmp_path: Path) -> None:
    sizes = HEADS | {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 32}
    facts = read(tmp_path, "qwen3moe", [(*ATTENTION, "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps", "ffn_up_shexp")] * 2, sizes)
    assert (facts.num_experts, facts.num_active_experts, facts.intermediate_size) == (8, 2, 32)
    counts = {group.role: group.num_elements // 4096 for group in facts.weights}
    assert (counts[Role.EXPERT], counts[Role.ROUTER], counts[Role.MLP]) == (4, 2, 2)
    assert facts.num_active_elements == 4096 * (8 + 2 + 2 + 4 * 2 // 8) + 10 * 64


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"embedding_length": None}, "embedding_length must be a number, got None; convert it again"),
        ({"attention.head_count": "four"}, "attention.head_count must be a number, got 'four'"),
    ],
)
def test_what_is_missing_is_named(sizes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, "llama", [ATTENTION], HEADS | sizes)
