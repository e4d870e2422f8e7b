"""What came of a trace: first request by request, then in figures."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Answer:
    """A request that was served, in seconds since the trace's beginning; ``first_token_s`` is when its client saw the first text."""

    arrival_s: float
    first_token_s: float
    end_s: float
    num_output_tokens: int


@dataclass
class Journal:
    """What a replay writes down on its way. ``gaps_s`` lie between the tokens of answers that are streamed."""

    answers: list[Answer] = field(default_factory=list)
    gaps_s: array[float] = field(default_factory=lambda: array("d"))
    num_refused: int = 0
    num_too_long: int = 0
    num_steps: int = 0
    num_step_sequences: int = 0
    num_preemptions: int = 0
    peak_kv_tokens: int = 0

    def note_steps(self, num_steps: int, num_sequences: int, num_kv_tokens: int) -> None:
        """Count steps, the sequences that they advanced (once for each step), and the room in the KV cache that was taken."""
        self.num_steps += num_steps
        self.num_step_sequences += num_sequences
        self.peak_kv_tokens = max(self.peak_kv_tokens, num_kv_tokens)


@dataclass(frozen=True)
class Percentiles:
    """In seconds, nearest rank; NaN of nothing."""

    p50_s: float
    p99_s: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Percentiles:
        """Summarize durations."""
        ranked = sorted(seconds)
        return cls(*(ranked[min(int(share * len(ranked)), len(ranked) - 1)] if ranked else math.nan for share in (0.50, 0.99)))


@dataclass(frozen=True)
class Outcome:
    """The figures of a replay.

    Of ``num_requests``, ``num_refused`` found no place (429, or 503 of TorchServe's queue) and ``num_too_long`` were longer than the model
    takes (400); what follows is about the others. ``duration_s``: from the first arrival to the last answer. ``latency``: from arrival to
    the end of the answer. ``inter_token``: between two tokens of a streamed answer. ``mean_batch``: sequences that a step advances, on
    average. ``peak_kv_tokens``: the most room taken in the KV cache, in whole blocks or padded rows.
    """

    num_requests: int
    num_refused: int
    num_too_long: int
    duration_s: float
    requests_per_s: float
    output_tokens_per_s: float
    latency: Percentiles
    first_token: Percentiles
    inter_token: Percentiles
    mean_batch: float
    num_preemptions: int
    peak_kv_tokens: int

    @classmethod
    def of(cls, journal: Journal) -> Outcome:
        """Summarize a replay."""
        answers = journal.answers
        duration_s = max((answer.end_s for answer in answers), default=0.0) - min((answer.arrival_s for answer in answers), default=0.0)
        return cls(
            num_requests=len(answers) + journal.num_refused + journal.num_too_long,
            num_refused=journal.num_refused,
            num_too_long=journal.num_too_long,
            duration_s=duration_s,
            requests_per_s=_ratio(len(answers), duration_s),
            output_tokens_per_s=_ratio(sum(answer.num_output_tokens for answer in answers), duration_s),
            latency=Percentiles.of(answer.end_s - answer.arrival_s for answer in answers),
            first_token=Percentiles.of(answer.first_token_s - answer.arrival_s for answer in answers),
            inter_token=Percentiles.of(journal.gaps_s),
            mean_batch=_ratio(journal.num_step_sequences, journal.num_steps),
            num_preemptions=journal.num_preemptions,
            peak_kv_tokens=journal.peak_kv_tokens,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them; what is not a number is null."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}


def _ratio(number: float, per: float) -> float:
    return number / per if per else 0.0


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
