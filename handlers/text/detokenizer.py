"""Token ids to text, a few at a time, never splitting a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
MAX_HELD_TOKENS = 8
"""A character takes at most four byte tokens; a longer tail of undecodable bytes is no beginning of a character."""


class IncrementalDetokenizer:
    """Decode a growing sequence of token ids piece by piece; the pieces add up to the text of the whole sequence.

    A token's text depends on its neighbours (byte-level pieces, leading spaces), so every step decodes a short window twice: with and without the
    new token. The difference is the new text. An incomplete character at the end is held back until it is complete. Not thread-safe.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []
        self._num_emitted = 0
        self._num_held = 0

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; empty while a character is incomplete."""
        self._window.append(token_id)
        return self._advance(may_hold=self._num_held < MAX_HELD_TOKENS)

    def flush(self) -> str:
        """Return what was held back, an incomplete character as U+FFFD."""
        return self._advance(may_hold=False)

    def _advance(self, *, may_hold: bool) -> str:
        before = self._decode(self._window[: self._num_emitted])
        text = self._decode(self._window)
        if len(text) <= len(before):
            return ""
        if may_hold and text.endswith(REPLACEMENT):
            self._num_held += 1
            return ""
        # The tokens just emitted stay as the context of the next ones; what lies before them is no longer needed.
        self._window = self._window[self._num_emitted :]
        self._num_emitted = len(self._window)
        self._num_held = 0
        return text[len(before) :]
