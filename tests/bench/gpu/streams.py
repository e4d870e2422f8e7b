"""Sequences of equal lengths on an engine, and when each of their tokens came."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from handlers.engine.client import EngineClient, Event
from handlers.requests import SamplingParams

SETTLING_STEPS = 4
"""Steps with all sequences that do not count: whatever is compiled for their number is compiled now."""
_SILENCE_S = 60.0


class EngineFailed(Exception):
    """The engine ended a sequence with an error, or says nothing any more."""


@dataclass(frozen=True)
class Steady:
    """The time in which all sequences generated. ``context``: their mean length in it, prompt and generated tokens."""

    num_tokens: int
    seconds: float
    context: float

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second, all sequences together."""
        return self.num_tokens / self.seconds

    @classmethod
    def of(cls, prompt_tokens: int, times_s: Sequence[Sequence[float]]) -> Steady:
        """Look at the tokens' times, one list a sequence: from when the last has settled to when the first ends. Raises ValueError."""
        begin_s = max((times[SETTLING_STEPS] if len(times) > SETTLING_STEPS else float("inf")) for times in times_s)
        end_s = min(times[-1] for times in times_s if times)
        counted = [place for times in times_s for place, at_s in enumerate(times) if begin_s < at_s <= end_s]
        if not counted:
            raise ValueError("there was no step with all sequences in it")
        return cls(len(counted), end_s - begin_s, prompt_tokens + sum(counted) / len(counted))


@dataclass
class Streams:
    """Sequences on their way, polled by one thread. ``last_s``: when there was news."""

    client: EngineClient
    times_s: dict[str, list[float]]
    started_s: float
    last_s: float
    ended: set[str] = field(default_factory=set)
    error: str | None = None

    @property
    def num_steps(self) -> int:
        """Tokens that each of them has at least."""
        return min(map(len, self.times_s.values()))

    def poll(self) -> None:
        """Wait for news and note it; raise EngineFailed."""
        self._take(self.client.poll(_SILENCE_S))
        if self.error:
            raise EngineFailed(self.error)

    def advance(self, num_steps: int) -> None:
        """Wait until each of them has so many tokens; raise ValueError when one ends before."""
        while self.num_steps < num_steps:
            self.poll()
            if self.ended:
                raise ValueError("a sequence ended before all had their tokens")

    def until_end(self, count: int) -> None:
        """Wait until ``count`` of them have all their tokens."""
        while len(self.ended) < count:
            self.poll()

    def cancel(self) -> None:
        """End those that are live, whatever has happened to them."""
        for sequence_id in self.times_s.keys() - self.ended:
            self.client.cancel(sequence_id)
        while len(self.ended) < len(self.times_s):
            self._take(self.client.poll(_SILENCE_S))

    def _take(self, events: Sequence[Event]) -> None:
        if not events:
            raise EngineFailed(f"the engine said nothing for {_SILENCE_S:.0f} s")
        self.last_s = time.perf_counter()
        for event in events:
            self.times_s[event.sequence_id] += [self.last_s] * len(event.token_ids)
            if event.finish_reason:
                self.ended.add(event.sequence_id)
            self.error = self.error or event.error


@contextmanager
def generating(client: EngineClient, prompts: Sequence[list[int]], num_tokens: int) -> Iterator[Streams]:
    """Add a sequence for each prompt, greedy and of ``num_tokens``; those that are live in the end are cancelled."""
    params = SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True)
    now_s = time.perf_counter()
    streams = Streams(client, {str(number): [] for number in range(len(prompts))}, now_s, now_s)
    for number, prompt in enumerate(prompts):
        client.add(str(number), prompt, params)
    try:
        yield streams
    finally:
        streams.cancel()


def random_prompts(count: int, num_tokens: int, vocabulary: int) -> list[list[int]]:
    """Return prompts that nobody has seen before."""
    return [random.choices(range(vocabulary), k=num_tokens) for _ in range(count)]
