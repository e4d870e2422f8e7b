"""A real checkpoint in engine processes: the same tokens as in this process, and nothing heavy in the worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from process_fakes import ScriptedHandler, end_of, has_ended, poll_until, tokens_of

from handlers import CausalLMHandler
from handlers.config import EngineConfig, HandlerConfig, SpeculationConfig
from handlers.engine.client import EngineClient
from handlers.engine.process.client import ProcessClient, start_process_client
from handlers.errors import ConfigError
from handlers.requests import SamplingParams

PROMPTS = {f"{index}": [5 + index, 9, 17 * index % 300] * (1 + 5 * index) for index in range(6)}
GREEDY = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True, logprobs=1)


def make_handler(model_dir: Path = Path(), kind: type[CausalLMHandler] = CausalLMHandler, **engine: object) -> CausalLMHandler:
    """Return a handler as an engine process makes it: without ``initialize``."""
    handler = kind()
    handler.model_dir, handler.model_name, handler.model_version = model_dir, "tiny", "1.0"
    handler.config = HandlerConfig(engine=EngineConfig(max_running=4, num_threads=1, **engine))  # type: ignore[arg-type]
    return handler


@pytest.fixture(scope="module")
def client(model_dir: Path) -> Iterator[ProcessClient]:
    client = start_process_client(make_handler(model_dir))
    yield client
    client.close()


@pytest.fixture(scope="module")
def expected(model_dir: Path) -> dict[str, list[int]]:
    engine = make_handler(model_dir).build_engine()
    outputs = generate(engine)
    engine.close()
    return outputs


def generate(engine: EngineClient) -> dict[str, list[int]]:
    for name, prompt in PROMPTS.items():
        engine.add(name, prompt, GREEDY)
    events = poll_until(engine, has_ended(*PROMPTS))
    assert all(len(event.logprobs) == len(event.token_ids) for event in events)
    assert {end_of(events, name).finish_reason for name in PROMPTS} == {"length"}
    return {name: tokens_of(events, name) for name in PROMPTS}


def test_the_tokens_are_those_of_an_engine_in_this_process(client: ProcessClient, expected: dict[str, list[int]]) -> None:
    assert generate(client) == expected


def test_a_killed_engine_is_back_with_the_same_answers(client: ProcessClient, expected: dict[str, list[int]]) -> None:
    os.kill(client.replicas()[0].pid, signal.SIGKILL)
    assert generate(client) == expected


def test_what_the_engine_cannot_do_with_the_checkpoint_is_said_in_one_line(model_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^handler\.engine\.max_model_len is 100000, but the model takes at most 256 tokens$"):
        start_process_client(make_handler(model_dir, max_model_len=100_000))
    with pytest.raises(ConfigError, match=r"^cannot read model/config\.json"):
        make_handler(tmp_path).build_engine()


@pytest.mark.parametrize("method", ["ngram", "draft"])
def test_guesses_change_no_token(model_dir: Path, tmp_path: Path, expected: dict[str, list[int]], method: str) -> None:
    for name in ("model", "draft"):
        (tmp_path / name).symlink_to(model_dir / "model")
    engine = make_handler(tmp_path, speculation=SpeculationConfig(method=method)).build_engine()
    plain = make_handler(model_dir).build_engine()
    try:
        assert generate(engine) == expected
        assert engine.stats().accepted_tokens > 0
        assert engine.stats().kv_bytes == plain.stats().kv_bytes * (2 if method == "draft" else 1)
    finally:
        engine.close()
        plain.close()


def test_a_draft_model_that_is_not_there_is_named(model_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"^cannot read draft/config\.json"):
        make_handler(model_dir, speculation=SpeculationConfig(method="draft")).build_engine()


class WithoutModel(CausalLMHandler):
    """The handler as the worker knows it; the engine at the other end is of no interest, and soon there."""

    def build_engine(self) -> EngineClient:
        return ScriptedHandler.configured(self.model_dir).build_engine()


WORKER = """
import sys
from test_model_processes import WithoutModel, make_handler, start_process_client
client = start_process_client(make_handler(kind=WithoutModel))
print(sorted({"torch", "transformers"} & set(sys.modules)))
client.close()
"""


def test_the_client_itself_needs_no_torch() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    worker = subprocess.run([sys.executable, "-c", WORKER], env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert worker.stdout.splitlines()[-1] == "[]"
