"""The whole engine from a model and a configuration, and what importing it costs."""

import subprocess
import sys

import pytest
from tiny_models import CONFIGS, EOS, generate, make_model

from handlers.config import EngineConfig
from handlers.engine.build import build_engine_client
from handlers.errors import ConfigError
from handlers.requests import SamplingParams


def test_a_built_engine_serves():
    oracle = make_model(CONFIGS["llama"])
    config = EngineConfig(max_running=2, max_waiting=3, kv_memory_gib=0.01, prefill_chunk_tokens=8)
    client = build_engine_client(make_model(CONFIGS["llama"]), config, eos_token_ids=frozenset([EOS]))
    try:
        assert client.max_model_len == 256
        client.add("a", [5, 6, 7, 8], SamplingParams(max_tokens=12, temperature=0.0))
        token_ids, is_finished = [], False
        while not is_finished:
            for event in client.poll(10):
                token_ids += event.token_ids
                is_finished = event.finish_reason is not None
        assert token_ids == generate(oracle, [5, 6, 7, 8], 12)
        assert client.stats().slots_total == 2
    finally:
        client.close()


def test_memory_that_holds_nothing_is_a_configuration_error():
    with pytest.raises(ConfigError, match="kv_memory_gib"):
        build_engine_client(make_model(CONFIGS["llama"]), EngineConfig(kv_memory_gib=1e-7), eos_token_ids=frozenset())


def test_importing_the_interface_does_not_import_torch():
    code = "import sys, handlers.engine, handlers.engine.build, handlers.engine.scheduler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(filter(None, sys.path))}).returncode == 0
