"""How memory becomes blocks: what fits, what is shortened, what is refused."""

import logging

import pytest
from transformers import GPT2Config, LlamaConfig

from handlers.config import EngineConfig
from handlers.engine.capacity import Capacity, model_len, plan_capacity
from handlers.errors import ConfigError


def plan(config: EngineConfig, budget_bytes: int, longest: int | None = 100) -> Capacity:
    return plan_capacity(config, token_bytes=10, model_len=longest, budget_bytes=budget_bytes)


def test_blocks_are_bounded_by_what_can_run_and_by_memory(caplog):
    assert plan(EngineConfig(max_running=4), budget_bytes=10**6) == Capacity(num_blocks=28, max_model_len=100)
    assert plan(EngineConfig(max_running=4), budget_bytes=3500) == Capacity(num_blocks=21, max_model_len=100)
    assert plan(EngineConfig(max_running=4, block_tokens=8), budget_bytes=3500) == Capacity(num_blocks=43, max_model_len=100)
    assert not caplog.records


def test_the_models_own_length_is_shortened_to_what_fits(caplog):
    with caplog.at_level(logging.WARNING):
        assert plan(EngineConfig(), budget_bytes=600) == Capacity(num_blocks=3, max_model_len=48)
    assert "handler.engine.kv_memory_gib" in caplog.text


@pytest.mark.parametrize(
    ("config", "budget_bytes", "longest", "message"),
    [
        (EngineConfig(max_model_len=60), 600, 100, r"max_model_len is 60, but .* hold 48 tokens of 10 bytes"),
        (EngineConfig(max_model_len=200), 10**6, 100, r"takes at most 100 tokens"),
        (EngineConfig(), 10**6, None, r"set handler.engine.max_model_len"),
        (EngineConfig(), 150, 100, r"hold 0 tokens"),
    ],
)
def test_what_cannot_work_is_a_configuration_error(config, budget_bytes, longest, message):
    with pytest.raises(ConfigError, match=message):
        plan(config, budget_bytes, longest)


def test_an_operators_length_is_taken_where_the_model_names_none():
    assert plan(EngineConfig(max_model_len=50, max_running=1), 10**6, longest=None) == Capacity(4, 50)


def test_one_sequence_of_full_length_always_fits():
    for budget_bytes in range(200, 5000, 70):
        capacity = plan(EngineConfig(max_running=3), budget_bytes)
        assert capacity.max_model_len <= capacity.num_blocks * EngineConfig().block_tokens


def test_the_models_length_comes_from_its_configuration():
    assert model_len(LlamaConfig(max_position_embeddings=123)) == 123
    assert model_len(GPT2Config(n_positions=77)) == 77


def test_rotary_embeddings_that_depend_on_the_longest_neighbour_are_not_reached():
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 64}
    assert model_len(LlamaConfig(max_position_embeddings=256, rope_parameters=rope)) == 64
