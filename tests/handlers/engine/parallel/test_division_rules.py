"""What may be divided among ranks, said before anything is loaded; and where the ranks run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, Phi3Config
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from handlers.causal_lm import CausalLMHandler
from handlers.config import EngineConfig, HandlerConfig, ModelConfig, QuantizationConfig, SpeculationConfig
from handlers.engine.parallel.start import rank_environment
from handlers.engine.process.placement import Placement, divide
from handlers.errors import ConfigError
from handlers.tensor_parallel import FAMILIES, indivisible, obstacle, vocabulary_rows
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.division import check_division, own_share
from handlers.weights.shards import Share
from tests.fakes import keep_worker, make_context

LLAMA_8B = {"model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336}
COLUMNWISE = [f"layers.*.{name}" for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")]
PLAN = dict.fromkeys(COLUMNWISE, "colwise") | {"layers.*.self_attn.o_proj": "rowwise", "layers.*.mlp.down_proj": "rowwise"}
NORMS_OF_A_HEAD = {f"layers.*.self_attn.{name}_norm" for name in "qk"}


@pytest.mark.parametrize(
    ("config", "num_ranks", "reason"),
    [
        (LLAMA_8B, 8, None),
        (LLAMA_8B, 16, None),  # each KV head is on two ranks
        (LLAMA_8B, 3, "3 does not divide 32 attention heads; valid are 1, 2, 4, 8, 16, 32"),
        (LLAMA_8B | {"intermediate_size": 14340}, 8, "8 does not divide 14340 columns of the MLP; valid are 1, 2, 4"),
        (LLAMA_8B | {"num_attention_heads": 24, "num_key_value_heads": 6}, 4, "4 does not divide 6 KV heads, nor they it; valid are 1, 2"),
        ({name: LLAMA_8B[name] for name in LLAMA_8B if name != "num_key_value_heads"}, 32, None),
        ({"model_type": "llama"}, 2, "config.json does not say num_attention_heads"),
        ({}, 2, f"models of type None cannot be divided; those of type {', '.join(sorted(FAMILIES))} can"),
    ],
)  # fmt: skip
def test_degrees_follow_from_the_configuration(config, num_ranks, reason):
    assert obstacle(config, num_ranks) == reason


@pytest.mark.parametrize("family", sorted(FAMILIES - {"phi3"}))  # whose layers are fused: transformers does not divide its attention
def test_families_are_those_that_transformers_divides_by_heads_and_columns(family):
    plan = dict(CONFIG_MAPPING[family].base_model_tp_plan)
    norms = {name: plan.pop(name) for name in NORMS_OF_A_HEAD & plan.keys()}
    assert plan == PLAN
    assert all(way.startswith("replicated") for way in norms.values())


@given(st.integers(1, 8), st.integers(1, 6), st.integers(1, 6), st.integers(1, 16))
def test_shares_hold_all_heads_and_columns_and_the_kv_heads_of_their_heads(kv_heads, repeats, columns, num_ranks):
    heads, intermediate = kv_heads * repeats, columns * num_ranks
    if indivisible(num_ranks, num_heads=heads, num_kv_heads=kv_heads, intermediate_size=intermediate):
        return
    config = LlamaConfig(num_attention_heads=heads, num_key_value_heads=kv_heads, intermediate_size=intermediate, hidden_size=heads)
    shares = [Share.of(config, rank, num_ranks) for rank in range(num_ranks)]
    assert [unit for share in shares for unit in units(share.heads)] == list(range(heads))
    assert [unit for share in shares for unit in units(share.columns)] == list(range(intermediate))
    for share in shares:
        groups = share.heads.count // share.kv_heads.count
        assert [units(share.kv_heads)[index // groups] for index in range(share.heads.count)] == [
            head // repeats for head in units(share.heads)
        ]


def units(span):
    return range(span.start, span.start + span.count)


def test_fused_layers_are_cut_part_by_part():
    config = Phi3Config(num_attention_heads=4, num_key_value_heads=2, intermediate_size=6, hidden_size=8, pad_token_id=0)
    share = Share.of(config, rank=1, num_ranks=2)
    rows = torch.arange(4 * 2 + 2 * 2 + 2 * 2)  # 4 heads of queries, 2 of keys, 2 of values, of 2 dimensions each
    assert share.cut("layers.0.self_attn.qkv_proj.weight", rows).tolist() == [4, 5, 6, 7, 10, 11, 14, 15]
    assert share.cut("layers.0.mlp.gate_up_proj.weight", torch.arange(12)).tolist() == [3, 4, 5, 9, 10, 11]


@given(st.integers(1, 300), st.integers(1, 16))
def test_every_token_is_in_one_share_of_the_vocabulary(vocab_size, num_ranks):
    rows = [range(vocab_size)[vocabulary_rows(vocab_size, rank, num_ranks)] for rank in range(num_ranks)]
    assert [token for share in rows for token in share] == list(range(vocab_size))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA_8B))
    (tmp_path / "model.safetensors").touch()
    return Checkpoint.open(tmp_path, ModelConfig())


SHARED = EngineConfig(tensor_parallel=2)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (HandlerConfig(engine=replace(SHARED, tensor_parallel=3)), "is 3, but 3 does not divide 32 attention heads; valid are 1, 2"),
        (HandlerConfig(engine=replace(SHARED, name="generate")), "is for the continuous engine, not for generate"),
        (HandlerConfig(engine=replace(SHARED, name="llamacpp")), "is for the continuous engine, not for llamacpp"),
        (HandlerConfig(engine=replace(SHARED, process=False)), "needs engine processes: set handler.engine.process: true"),
        (HandlerConfig(engine=replace(SHARED, speculation=SpeculationConfig(method="draft"))), "cannot be combined with a draft model"),
        (HandlerConfig(engine=replace(SHARED, compile=True)), "cannot be combined with handler.engine.compile: set it to false"),
        (HandlerConfig(engine=SHARED, quantization=QuantizationConfig("int8")), "divides plain weights only, and these are plain, int8"),
    ],
)  # fmt: skip
def test_what_cannot_be_divided_is_refused_in_one_line(checkpoint: Checkpoint, config: HandlerConfig, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_division(checkpoint, config)


def test_pickled_weights_are_refused(checkpoint: Checkpoint) -> None:
    (checkpoint.directory / "model.safetensors").rename(checkpoint.directory / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"divides \*\.safetensors only: convert"):
        check_division(checkpoint, HandlerConfig(engine=SHARED))


def test_what_can_be_divided_is_not_refused(checkpoint: Checkpoint) -> None:
    check_division(checkpoint, HandlerConfig(engine=SHARED))
    check_division(checkpoint, HandlerConfig(quantization=QuantizationConfig("int8")))


def test_a_process_that_is_no_rank_has_no_share(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match=r"handler\.engine\.tensor_parallel is for handlers with a continuous engine"):
        own_share(checkpoint)


def test_each_replica_gets_gpus_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert divide(2, num_ranks=2) == [Placement(gpus=("4", "5"), num_ranks=2), Placement(gpus=("6", "7"), num_ranks=2)]
    assert divide(1, num_ranks=2) == [Placement(gpus=("4", "5"), num_ranks=2)]
    with pytest.raises(ConfigError, match=r"^3 replicas of 2 ranks .* need 6 GPUs, and there are 4: 4, 5, 6, 7$"):
        divide(3, num_ranks=2)
    with pytest.raises(ConfigError, match=r"need 8 GPUs, and there are 4"):
        divide(1, num_ranks=8)


def test_each_rank_sees_one_of_the_gpus_of_its_replica() -> None:
    assert rank_environment(1, ["4", "GPU-abc"], 3) == {"CUDA_VISIBLE_DEVICES": "GPU-abc", "OMP_NUM_THREADS": "3"}
    assert rank_environment(1, [], 3) == {"OMP_NUM_THREADS": "3"}


def test_a_worker_refuses_before_it_loads(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_worker(monkeypatch)
    context = make_context(CausalLMHandler, model_dir, handler={"integrity": "off", "engine": {"tensor_parallel": 3}})
    with pytest.raises(ConfigError, match="is 3, but 3 does not divide 4 attention heads; valid are 1, 2"):
        CausalLMHandler().initialize(context)


def test_ranks_on_a_cpu_share_the_cores_of_their_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert divide(1, num_ranks=2) == [Placement(num_ranks=2)]
    assert {place.num_ranks for place in divide(2, num_ranks=2)} == {2}
