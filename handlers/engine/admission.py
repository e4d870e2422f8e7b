"""What an engine can take on: checked before a request reaches it, in whatever process that is."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.errors import InvalidRequest, Overloaded

if TYPE_CHECKING:
    from handlers.engine.client import Event
    from handlers.requests import SamplingParams

_RECENT_ENDS = 64
_LONGEST_RETRY_S = 60


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The limits of one engine, as plain data.

    ``max_model_len`` bounds prompt and generated tokens of a sequence together, and that many always fit into the KV cache. At most
    ``max_running`` sequences run and ``max_waiting`` wait; ``max_queued_tokens`` bounds the prompts of those that wait (None: it does not).
    """

    max_model_len: int
    vocab_size: int
    max_running: int
    max_waiting: int
    max_queued_tokens: int | None = None

    def check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        """Raise InvalidRequest if the sequence could never run; ValueError if ``params.max_tokens`` was not settled."""
        if params.max_tokens is None:
            raise ValueError("SamplingParams.max_tokens must be a number when a sequence reaches the engine, got None")
        if params.max_tokens < 1:
            raise InvalidRequest(f"max_tokens must be at least 1, got {params.max_tokens}", param="max_tokens")
        if not prompt_token_ids:
            raise InvalidRequest("the prompt is empty")
        if len(prompt_token_ids) >= self.max_model_len:
            raise InvalidRequest(
                f"the prompt has {len(prompt_token_ids)} tokens; with at least one generated token, "
                f"prompts of up to {self.max_model_len - 1} fit",
                code="context_length_exceeded",
            )
        lowest, highest = min(prompt_token_ids), max(prompt_token_ids)
        if not 0 <= lowest <= highest < self.vocab_size:
            raise InvalidRequest(f"prompt token ids must lie in 0..{self.vocab_size - 1}, got {lowest}..{highest}")


class Admission:
    """Counts the live sequences of an engine and decides whether one more may come in. Not thread-safe.

    A sequence is live from ``admit`` to its terminal event, and queued until its first token.
    """

    def __init__(self, limits: EngineLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._live: set[str] = set()
        self._queued: dict[str, int] = {}  # tokens of the prompts
        self._queued_tokens = 0
        self._ends_s: deque[float] = deque(maxlen=_RECENT_ENDS)

    @property
    def live(self) -> Collection[str]:
        """The ids of the sequences that were admitted and have not ended."""
        return self._live

    def check_room(self) -> None:
        """Raise Overloaded if not even the shortest sequence would be let in."""
        max_live = self._limits.max_running + self._limits.max_waiting
        if len(self._live) >= max_live:
            raise Overloaded(f"all {max_live} places are taken; try again later", retry_after_s=self._retry_after_s())

    def admit(self, sequence_id: str, num_prompt_tokens: int) -> None:
        """Let a sequence in. Raises Overloaded if there is no room; a prompt that alone is more than may be queued waits alone."""
        self.check_room()
        max_tokens = self._limits.max_queued_tokens
        if max_tokens is not None and self._queued and self._queued_tokens + num_prompt_tokens > max_tokens:
            raise Overloaded(
                f"prompts of {self._queued_tokens} tokens wait, and with these {num_prompt_tokens} it would be more than {max_tokens}; "
                "try again later",
                retry_after_s=self._retry_after_s(),
            )
        self._live.add(sequence_id)
        self._queued[sequence_id] = num_prompt_tokens
        self._queued_tokens += num_prompt_tokens

    def note(self, event: Event) -> None:
        """Take in what happened to a live sequence."""
        if event.sequence_id in self._queued:
            self._queued_tokens -= self._queued.pop(event.sequence_id)
        if event.finish_reason is not None:
            self._live.discard(event.sequence_id)
            self._ends_s.append(self._clock())

    def _retry_after_s(self) -> int:
        """Estimate how long those that are queued now take to start: one does whenever another ends."""
        if not self._ends_s:
            return 1
        s_per_end = (self._clock() - self._ends_s[0]) / len(self._ends_s)
        return min(max(math.ceil(len(self._queued) * s_per_end), 1), _LONGEST_RETRY_S)
