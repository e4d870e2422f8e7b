"""The ``handler:`` section: what is accepted, and how a mistake is explained."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
import yaml

from handlers.config import HandlerConfig, parse_handler_config
from handlers.errors import ConfigError


def parse(text: str) -> HandlerConfig:
    return parse_handler_config(yaml.safe_load(text))


@pytest.mark.parametrize("model_config", [None, {}, {"batchSize": 8}, {"handler": None}, {"handler": {}}])
def test_nothing_means_the_defaults(model_config: Any) -> None:
    assert parse_handler_config(model_config) == HandlerConfig()


def test_every_key_survives_yaml() -> None:
    config = parse(
        """
        handler:
          model: {path: weights, dtype: float16, trust_remote_code: true, allow_pickle: true}
          quantization: {recipe: nf4}
          tokenizer: {chat_template: chat.jinja}
          engine:
            name: continuous
            max_model_len: 512
            max_running: 3
            max_waiting: 0
            memory_fraction: 1
            kv_memory_gib: 2
            prefill_chunk_tokens: 64
          generation: {max_new_tokens: 5}
          stream: {flush_ms: 0}
          limits: {max_prompt_tokens: 7}
          integrity: required
        """
    )

    assert config != HandlerConfig()
    assert parse(yaml.safe_dump({"handler": asdict(config)})) == config
    assert all(asdict(config)[name] != default for name, default in asdict(HandlerConfig()).items())


def test_the_defaults_survive_yaml() -> None:
    assert parse(yaml.safe_dump({"handler": asdict(HandlerConfig())})) == HandlerConfig()


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("{engin: {}}", "handler.engin: unknown key; did you mean 'engine'?"),
        ("{engine: {max_runing: 3}}", "handler.engine.max_runing: unknown key; did you mean 'max_running'?"),
        ("{stream: {zzz: 3}}", "handler.stream.zzz: unknown key; valid keys: flush_ms, hold_ms"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_valid_one(section: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"handler: {section}")

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ('{engine: {max_running: "3"}}', "handler.engine.max_running"),
        ("{engine: {max_running: 3.5}}", "handler.engine.max_running"),
        ("{engine: {max_running: true}}", "handler.engine.max_running"),
        ("{engine: {max_running: 0}}", "handler.engine.max_running"),
        ("{engine: {memory_fraction: 1.1}}", "handler.engine.memory_fraction"),
        ("{engine: {memory_fraction: .nan}}", "handler.engine.memory_fraction"),
        ("{engine: {kv_memory_gib: .inf}}", "handler.engine.kv_memory_gib"),
        ("{engine: {name: vllm}}", "handler.engine.name"),
        ("{engine: 5}", "handler.engine"),
        ("{model: {path: 5}}", "handler.model.path"),
        ("{model: {trust_remote_code: 1}}", "handler.model.trust_remote_code"),
        ("{integrity: maybe}", "handler.integrity"),
        ("{generation: {max_new_tokens: 2026-01-01}}", "handler.generation.max_new_tokens"),
        ("[1]", "handler"),
    ],
)
def test_a_wrong_value_is_named(section: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"handler: {section}")

    assert str(caught.value).startswith(f"{key}: ")
    assert "\n" not in str(caught.value)


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(ConfigError, match="max_running.*flush_ms"):
        parse("handler: {engine: {max_running: 0}, stream: {flush_ms: -1}}")


def test_the_configuration_cannot_change_under_a_running_worker() -> None:
    with pytest.raises(AttributeError):
        HandlerConfig().engine.max_running = 5  # type: ignore[misc]
