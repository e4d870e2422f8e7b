"""The whole engine from a model and a configuration, and what importing it costs."""

import copy
import subprocess
import sys
from dataclasses import replace

import pytest
from tiny_models import CONFIGS, EOS, FALCON, MAMBA, generate, make_model

from handlers.config import EngineConfig, SpeculationConfig
from handlers.engine.build import build_engine_client
from handlers.engine.client import EngineClient
from handlers.engine.surroundings import Surroundings
from handlers.errors import ConfigError
from handlers.requests import SamplingParams


def run_one(client: EngineClient, prompt: list[int]) -> list[int]:
    """Return twelve tokens after ``prompt``, or those up to an eos."""
    client.add("a", prompt, SamplingParams(max_tokens=12, temperature=0.0))
    token_ids: list[int] = []
    while True:
        for event in client.poll(10):
            token_ids += event.token_ids
            if event.finish_reason is not None:
                return token_ids


def test_a_built_engine_serves():
    oracle = make_model(CONFIGS["llama"])
    config = EngineConfig(max_running=2, max_waiting=3, kv_memory_gib=0.01, prefill_chunk_tokens=8)
    client = build_engine_client(make_model(CONFIGS["llama"]), config, eos_token_ids=frozenset([EOS]))
    try:
        assert client.max_model_len == 256
        assert run_one(client, [5, 6, 7, 8]) == generate(oracle, [5, 6, 7, 8], 12)
        assert client.stats().blocks_total == 2 * 256 // 16
    finally:
        client.close()


@pytest.mark.parametrize("config", [FALCON, MAMBA])
def test_a_model_that_the_engine_cannot_run_is_routed_to_generate(config, caplog):
    client = build_engine_client(make_model(config), EngineConfig(max_model_len=128), eos_token_ids=frozenset([EOS]))
    try:
        assert "it runs on transformers' generate instead" in caplog.text
        assert run_one(client, [5, 6, 7, 8]) == generate(make_model(config), [5, 6, 7, 8], 12)
    finally:
        client.close()


def test_a_model_that_the_engine_cannot_run_is_refused_where_no_other_is_wanted():
    config = EngineConfig(name="continuous", max_model_len=128)
    with pytest.raises(ConfigError, match="layers.*name: generate"):
        build_engine_client(make_model(MAMBA), config, eos_token_ids=frozenset([EOS]))


def test_a_runner_that_disagrees_leaves_the_model_fit_for_generate(monkeypatch, caplog):
    monkeypatch.setattr("handlers.engine.compatibility._TOLERANCE_FLOAT32", -1.0)
    client = build_engine_client(make_model(CONFIGS["gpt2"]), EngineConfig(), eos_token_ids=frozenset([EOS]))
    try:
        assert "it runs on transformers' generate instead" in caplog.text
        assert run_one(client, [5, 6, 7, 8]) == generate(make_model(CONFIGS["gpt2"]), [5, 6, 7, 8], 12)
    finally:
        client.close()


def test_memory_that_holds_nothing_is_a_configuration_error():
    with pytest.raises(ConfigError, match="kv_memory_gib"):
        build_engine_client(make_model(CONFIGS["llama"]), EngineConfig(kv_memory_gib=1e-7), eos_token_ids=frozenset())


def test_importing_the_interface_does_not_import_torch():
    code = "import sys, handlers.engine, handlers.engine.build, handlers.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(filter(None, sys.path))}).returncode == 0


def test_engines_that_make_no_guesses_refuse_to_be_told_to():
    config = EngineConfig(name="generate", speculation=SpeculationConfig(method="ngram"))
    with pytest.raises(ConfigError, match="the engine generate makes no guesses"):
        build_engine_client(make_model(CONFIGS["llama"]), config, eos_token_ids=frozenset())
    with pytest.raises(ConfigError, match=r"^MambaForCausalLM cannot run .* layers\. Leave handler\.engine\.speculation out$"):
        build_engine_client(make_model(MAMBA), replace(config, name="auto"), eos_token_ids=frozenset())


def test_a_draft_model_that_was_asked_for_must_be_there():
    config = EngineConfig(kv_memory_gib=0.01, speculation=SpeculationConfig(method="draft"))
    with pytest.raises(ConfigError, match="there is no draft model"):
        build_engine_client(make_model(CONFIGS["llama"]), config, eos_token_ids=frozenset())


def test_a_draft_model_with_other_tokens_is_refused():
    config = EngineConfig(kv_memory_gib=0.01, speculation=SpeculationConfig(method="draft"))
    other = copy.deepcopy(CONFIGS["llama"])
    other.vocab_size = 2000
    with pytest.raises(ConfigError, match="a vocabulary of 2000 tokens and the model one of 256"):
        around = Surroundings(draft_model=make_model(other))
        build_engine_client(make_model(CONFIGS["llama"]), config, eos_token_ids=frozenset(), around=around)
