"""An engine without a model or torch, built in a real engine process: what a prompt asks for is what happens."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from handlers.config import EngineConfig, HandlerConfig
from handlers.engine.admission import EngineLimits
from handlers.engine.client import EngineStats, Event, Start
from handlers.engine.process.client import ProcessClient, start_process_client
from handlers.errors import ConfigError
from handlers.requests import SamplingParams

VOCAB_SIZE = 2000
CRASH, DIE, HANG, REFUSE = 1001, 1002, 1003, 1004
"""A prompt with one of these tokens makes the engine raise, kills its process, stops its steps, or is refused though it was admitted."""
STEP_S = 0.001
PATIENCE_S = 30.0


def continuation(prompt: Sequence[int], num_tokens: int) -> list[int]:
    """What the engine says to a prompt."""
    return [(sum(prompt) + position) % 1000 for position in range(num_tokens)]


class ScriptedEngine:
    """An EngineClient in which every sequence gets one token at each poll."""

    def __init__(self, limits: EngineLimits) -> None:
        self.limits = limits
        self.max_model_len = limits.max_model_len
        self._pending: dict[str, list[int]] = {}
        self._events: list[Event] = []
        self._steps = self._generated = 0
        self._is_hung = False

    def add(
        self,
        sequence_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        max_queue_s: float | None = None,
    ) -> None:
        if REFUSE in prompt_token_ids:
            raise ValueError("not this one")
        if DIE in prompt_token_ids:
            os.kill(os.getpid(), signal.SIGKILL)
        self._is_hung |= HANG in prompt_token_ids
        self._pending[sequence_id] = [*continuation(prompt_token_ids, params.max_tokens or 1), *([CRASH] * (CRASH in prompt_token_ids))]

    def cancel(self, sequence_id: str) -> None:
        if self._pending.pop(sequence_id, None) is not None:
            self._events.append(Event(sequence_id, finish_reason="cancelled"))

    def poll(self, timeout_s: float) -> list[Event]:
        if self._is_hung or not self._pending:
            time.sleep(min(timeout_s, STEP_S) if not self._is_hung else timeout_s)
        events, self._events = self._events, []
        if self._is_hung:
            return events
        time.sleep(STEP_S)
        self._steps += 1
        return events + [self._step(sequence_id) for sequence_id in list(self._pending)]

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self._pending), steps=self._steps, generated_tokens=self._generated, step_ms_p50=STEP_S * 1000)

    def drain(self, timeout_s: float) -> bool:
        return True

    def close(self) -> None:
        pass

    def _step(self, sequence_id: str) -> Event:
        pending = self._pending[sequence_id]
        token_id = pending.pop(0)
        if token_id == CRASH:
            raise RuntimeError("the engine itself has failed")
        self._generated += 1
        if pending:
            return Event(sequence_id, (token_id,))
        del self._pending[sequence_id]
        return Event(sequence_id, (token_id,), "length", start=Start(0.5, 3))


@dataclass
class ScriptedHandler:
    """An EngineBuilder; the files in ``model_dir`` say how loading goes."""

    model_dir: Path = Path()
    model_name: str = "tiny"
    model_version: str = "1.0"
    config: HandlerConfig = field(default_factory=HandlerConfig)

    @classmethod
    def configured(cls, model_dir: Path, **engine: Any) -> ScriptedHandler:
        return cls(model_dir, config=HandlerConfig(engine=EngineConfig(**engine)))

    def build_engine(self) -> ScriptedEngine:
        for name, fail in FAILURES.items():
            if (self.model_dir / name).exists():
                fail()
        engine = self.config.engine
        return ScriptedEngine(EngineLimits(engine.max_model_len or 1000, VOCAB_SIZE, engine.max_running, engine.max_waiting))


def _raise(error: Exception) -> None:
    raise error


FAILURES: dict[str, Callable[[], None]] = {
    "misconfigured": lambda: _raise(ConfigError("handler.engine.max_model_len is 7, but that is too long")),
    "broken": lambda: _raise(KeyError("secret")),
    "fatal": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "slow": lambda: time.sleep(0.5),
    "endless": lambda: time.sleep(3600),
}


def poll_until(client: Any, is_done: Callable[[list[Event]], bool]) -> list[Event]:
    """Poll until ``is_done(events so far)``."""
    events: list[Event] = []
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_done(events):
        assert time.monotonic() < deadline_s, f"nothing happened; so far {events}"
        events += client.poll(0.05)
    return events


def has_ended(*sequence_ids: str) -> Callable[[list[Event]], bool]:
    return lambda events: {event.sequence_id for event in events if event.finish_reason} >= set(sequence_ids)


def tokens_of(events: Sequence[Event], sequence_id: str) -> list[int]:
    return [token_id for event in events if event.sequence_id == sequence_id for token_id in event.token_ids]


def end_of(events: Sequence[Event], sequence_id: str) -> Event:
    (last,) = [event for event in events if event.sequence_id == sequence_id and event.finish_reason]
    return last


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.01)


class EngineStarter:
    """Starts scripted engines, ``start(**engine settings)``, and knows which children of this process have come since."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._strangers = set(children(os.getpid()))
        self.clients: list[ProcessClient] = []

    def __call__(self, **engine: Any) -> ProcessClient:
        self.clients.append(start_process_client(ScriptedHandler.configured(self._directory, **engine)))
        return self.clients[-1]

    def processes(self) -> set[int]:
        return set(children(os.getpid())) - self._strangers


def children(pid: int) -> Iterator[int]:
    """The processes whose parent is ``pid``."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            yield int(path.parent.name)
