"""Where the time of an answer goes: consecutive parts that never overlap, so that they add up to the whole."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

Part = Literal["tokenize", "queue", "prefill", "decode", "detokenize", "send"]
"""``tokenize``: the body is read, ``preprocess``, chat template, token ids. ``queue``: until the model first reads of the prompt.
``prefill``: until the first token is here. ``decode``: waiting for the others. ``detokenize``: text out of tokens, stop strings, ``emit``,
``postprocess``. ``send``: the answer is encoded and handed over; a choice, and a row of a static batch, first waits for the others."""
PARTS: tuple[Part, ...] = ("tokenize", "queue", "prefill", "decode", "detokenize", "send")


class TimeLedger:
    """The time of one choice since the handler first saw its request, part by part. Not thread-safe.

    Time is booked when a part ends, from where the last booking ended. So ``parts``, in seconds, add up to the time from the start to the
    last booking; a part that was never reached is missing.
    """

    __slots__ = ("_booked_s", "_clock", "parts")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._booked_s = clock()
        self.parts: dict[Part, float] = {}

    @property
    def total_s(self) -> float:
        """All that was booked."""
        return sum(self.parts.values())

    @property
    def first_token_s(self) -> float | None:
        """How long the first token took; None before it."""
        return self.total_s - self.generation_s - self.parts.get("send", 0.0) if "prefill" in self.parts else None

    @property
    def generation_s(self) -> float:
        """How long the tokens after the first one took."""
        return self.parts.get("decode", 0.0) + self.parts.get("detokenize", 0.0)

    def book(self, part: Part, at_most_s: float = math.inf) -> None:
        """Book the time since the last booking, or the first ``at_most_s`` of it, as ``part``."""
        seconds = min(self._clock() - self._booked_s, at_most_s)
        self.parts[part] = self.parts.get(part, 0.0) + seconds
        self._booked_s += seconds

    def book_engine(self, *, has_tokens: bool, queue_s: float) -> None:
        """Book the time until the engine was heard of; with the first token it says how long the sequence had waited."""
        if "prefill" in self.parts:
            self.book("decode")
        elif has_tokens:
            self.book("queue", queue_s)
            self.book("prefill")
        else:
            self.book("queue")

    def copy(self) -> TimeLedger:
        """Return a ledger that goes on from here by itself."""
        ledger = TimeLedger(self._clock)
        ledger._booked_s, ledger.parts = self._booked_s, dict(self.parts)
        return ledger

    def server_timing(self) -> str:
        """Return the value of a ``Server-Timing`` header, in milliseconds (W3C Server Timing, https://www.w3.org/TR/server-timing)."""
        entries = [*((part, self.parts[part]) for part in PARTS if part in self.parts), ("total", self.total_s)]
        return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in entries)
