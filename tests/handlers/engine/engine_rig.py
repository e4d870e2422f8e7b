"""Drive an engine by hand: add, step, and collect what came of each sequence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from engine_fakes import FakeRunner

from handlers.engine.client import Event, Start
from handlers.engine.engine import Engine
from handlers.requests import SamplingParams

EOS = 3


def greedy(max_tokens: int = 8, **params) -> SamplingParams:
    """Parameters for a fake model, which has one likely token; no eos ends the sequence unless asked for."""
    return SamplingParams(max_tokens=max_tokens, temperature=0.0, **{"ignore_eos": True, **params})


class Outcome:
    """Collects events, and notices a second terminal event, tokens after it, or a first token that does not say how it began."""

    def __init__(self) -> None:
        self.token_ids: dict[str, list[int]] = defaultdict(list)
        self.starts: dict[str, Start] = {}
        self.last: dict[str, Event] = {}

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            assert event.sequence_id not in self.last, "an event after the terminal one"
            assert (event.start is not None) == (bool(event.token_ids) and not self.token_ids[event.sequence_id])
            if event.start is not None:
                self.starts[event.sequence_id] = event.start
            self.token_ids[event.sequence_id].extend(event.token_ids)
            if event.finish_reason is not None:
                self.last[event.sequence_id] = event

    def count(self, *reasons: str) -> int:
        return sum(event.finish_reason in reasons for event in self.last.values())


class EngineRig:
    """An engine over a fake model and what came of its sequences; its integrity is checked after every step."""

    def __init__(self, runner: FakeRunner | None = None, *, max_running: int = 4, prefill_chunk_tokens: int = 8, **options) -> None:
        self.runner = runner or FakeRunner()
        self.outcome = Outcome()
        self.engine = Engine(
            self.runner,
            max_running=max_running,
            prefill_chunk_tokens=prefill_chunk_tokens,
            eos_token_ids=frozenset([EOS]),
            **options,
        )

    def add(self, name: str, prompt: list[int], params: SamplingParams | None = None, **options) -> None:
        self.engine.add(self.engine.new_sequence(name, prompt, params or greedy(), **options))

    def cancel(self, name: str) -> None:
        event = self.engine.cancel(name)
        self.outcome.take([event] if event else [])
        self.engine.check_integrity()

    def step(self) -> None:
        """Do what the thread does in a turn."""
        try:
            self.outcome.take(self.engine.expire())
            self.outcome.take(self.engine.step())
        except (RuntimeError, ValueError):
            self.outcome.take(self.engine.recover())
        self.engine.check_integrity()

    def finish(self, max_steps: int = 10_000) -> Outcome:
        for _ in range(max_steps):
            if not self.engine.has_work:
                return self.outcome
            self.step()
        raise AssertionError("the engine did not finish")
