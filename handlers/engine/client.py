"""The engine as its callers see it: what goes in, the events that come out, and the numbers worth watching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from handlers.requests import FinishReason, SamplingParams


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one sequence since the last poll.

    ``token_ids`` are newly generated, in order. The last ``num_stop_tokens`` (0 or 1) of them ended the sequence (an eos or stop token):
    they count as generated but are no text. ``finish_reason`` is set on exactly one event of a sequence, its last. ``error`` comes
    with ``finish_reason`` "error" and is fit for a client.
    """

    sequence_id: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    num_stop_tokens: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of the engine: sequences by state, slots, totals since the start, and step times over the recent past in milliseconds."""

    running: int = 0
    waiting: int = 0
    slots_used: int = 0
    slots_total: int = 0
    steps: int = 0
    generated_tokens: int = 0
    step_ms_p50: float = 0.0
    step_ms_p99: float = 0.0


class EngineClient(Protocol):
    """The one door to an engine, wherever it runs. Methods are thread-safe; only ``poll``, ``drain`` and ``close`` wait."""

    @property
    def max_model_len(self) -> int:
        """The longest sequence, prompt and generated tokens together."""
        ...

    def add(self, sequence_id: str, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        """Admit a sequence; its events follow from ``poll``.

        Raises InvalidRequest (empty prompt, a token id outside the vocabulary, a length that never fits), Overloaded (the waiting room is
        full) or Unavailable (draining or closed). An error here is the only answer: no event follows.
        """
        ...

    def cancel(self, sequence_id: str) -> None:
        """End a sequence early: a terminal "cancelled" event follows if it was live. Unknown and finished ids are ignored."""
        ...

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait until there is something to report or the time is over; return at most one event a sequence."""
        ...

    def stats(self) -> EngineStats:
        """Return a snapshot."""
        ...

    def drain(self, timeout_s: float) -> bool:
        """Refuse new sequences from now on, and wait until none is live; return whether that was reached in time."""
        ...

    def close(self) -> None:
        """Stop the engine; live sequences end with a terminal event. Safe to call again."""
        ...
