"""The engine as its callers see it: what goes in, the events that come out, and the numbers worth watching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from handlers.requests import FinishReason, SamplingParams, TokenLogprob

if TYPE_CHECKING:
    from handlers.engine.admission import EngineLimits


@dataclass(frozen=True, slots=True)
class Event:
    """What happened to one sequence since the last poll.

    ``token_ids`` are newly generated, in order, and ``logprobs`` theirs if they were asked for. The last ``num_stop_tokens`` (0 or 1) of
    them ended the sequence (an eos or stop token): they count as generated but are no text. ``finish_reason`` is set on exactly one event
    of a sequence, its last: "expired" when it waited longer than it was allowed to, and ``error`` comes with "error" and is fit for a
    client. ``start`` is on the event with the first token.
    """

    sequence_id: str
    token_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    num_stop_tokens: int = 0
    error: str | None = None
    logprobs: tuple[TokenLogprob, ...] = ()
    start: Start | None = None


@dataclass(frozen=True, slots=True)
class Start:
    """How a sequence began: how long it waited until the model first read of it, and how many tokens of its prompt were cached."""

    queue_s: float
    num_cached_tokens: int


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of the engine: sequences by state, KV blocks, totals since the start, and the recent past in milliseconds and tokens/s.

    ``blocks_used`` belong to running sequences; cached blocks that nobody uses count as free. Of ``queried_tokens`` of prompts
    ``cached_tokens`` were found in the prefix cache. ``sampled_sequences``: those that got tokens, counted in every step. Of
    ``drafted_tokens``, guesses of speculative decoding, ``accepted_tokens`` were right. ``max_running``: how many sequences are admitted
    at once now, fewer than configured after one of the ``out_of_memory`` errors so far. ``restarts``: engine processes that were lost, to
    be replaced. The bytes are what was measured at load: see ``memory.footprint``. Of replicas all numbers are sums, and ``engines`` says
    of how many.
    """

    running: int = 0
    waiting: int = 0
    blocks_used: int = 0
    blocks_total: int = 0
    queried_tokens: int = 0
    cached_tokens: int = 0
    preemptions: int = 0
    steps: int = 0
    sampled_sequences: int = 0
    generated_tokens: int = 0
    tokens_per_s: float = 0.0
    step_ms_p50: float = 0.0
    step_ms_p99: float = 0.0
    engines: int = 0
    max_running: int = 0
    out_of_memory: int = 0
    restarts: int = 0
    weight_bytes: int = 0
    kv_bytes: int = 0
    activation_bytes: int = 0
    context_bytes: int = 0
    graph_bytes: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0


class EngineClient(Protocol):
    """The one door to an engine, wherever it runs. Methods are thread-safe; only ``poll``, ``drain`` and ``close`` wait."""

    @property
    def max_model_len(self) -> int:
        """The longest sequence, prompt and generated tokens together."""
        ...

    @property
    def limits(self) -> EngineLimits:
        """What ``add`` admits; of several replicas, what each of them does."""
        ...

    def add(
        self,
        sequence_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        max_queue_s: float | None = None,
    ) -> None:
        """Admit a sequence; its events follow from ``poll``.

        Waiting sequences start in the order of ``priority`` (the lowest first), then of arrival. One that still waits after ``max_queue_s``
        is never run: its only event is "expired". Raises InvalidRequest (empty prompt, a token id outside the vocabulary, a length that
        never fits), Overloaded (no room, in requests or in tokens) or Unavailable (draining or closed). An error here is the only answer:
        no event follows.
        """
        ...

    def check_room(self) -> None:
        """Raise Overloaded or Unavailable if ``add`` would, whatever it was given: so that no work goes into what will be refused."""
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
