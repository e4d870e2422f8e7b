"""One answer as it was received: its text, how long it took, how it ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from archiver.deploy.chat.stream import Chunk


class Answer:
    """Grows with each chunk. Times are seconds since it was asked for; numbers of tokens are known at the end only."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.text = ""
        self.finish_reason: str | None = None
        self.num_prompt_tokens: int | None = None
        self.num_tokens: int | None = None
        self.first_text_s: float | None = None
        self._last_text_s = 0.0
        self._clock = clock
        self._asked_s = clock()

    def add(self, chunk: Chunk) -> None:
        """Take the next chunk in."""
        if chunk.text:
            self.text += chunk.text
            self._last_text_s = self._clock() - self._asked_s
            self.first_text_s = self._last_text_s if self.first_text_s is None else self.first_text_s
        self.finish_reason = chunk.finish_reason or self.finish_reason
        if chunk.num_tokens is not None:
            self.num_prompt_tokens, self.num_tokens = chunk.num_prompt_tokens, chunk.num_tokens

    def cancel(self) -> None:
        """Note that the user has heard enough."""
        self.finish_reason = "cancelled"

    @property
    def is_cancelled(self) -> bool:
        """Whether the rest was not wanted."""
        return self.finish_reason == "cancelled"

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second after the first; None when that is unknown, as of an answer that came in one piece."""
        if self.num_tokens is None or self.first_text_s is None or self._last_text_s <= self.first_text_s:
            return None
        return (self.num_tokens - 1) / (self._last_text_s - self.first_text_s)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for a machine."""
        return {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "prompt_tokens": self.num_prompt_tokens,
            "generated_tokens": self.num_tokens,
            "time_to_first_token_s": self.first_text_s,
            "tokens_per_s": self.tokens_per_s,
        }
