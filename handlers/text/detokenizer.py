"""Token ids to text, one at a time, never splitting a character."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"
MAX_CHARACTER_TOKENS = 4
"""UTF-8 writes a character in at most four bytes (RFC 3629), and a token holds at least one byte."""


class IncrementalDetokenizer:
    """Decode a growing sequence of token ids piece by piece; the pieces add up to the text of the whole sequence.

    A token's text depends on its neighbours (byte-level pieces, leading spaces), so every step decodes a short window: a context whose text
    is out already, and the tokens since. An incomplete character, which decodes to U+FFFD, is held back until it is complete. ``skip``
    names tokens that are no text (special tokens). Not thread-safe.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], skip: frozenset[int] = frozenset()) -> None:
        self._decode = decode
        self._skip = skip
        self._window: list[int] = []
        self._num_context = 0
        self._num_sent = 0  # characters of the window's text that are out

    def push(self, token_id: int) -> str:
        """Return the text that this token completes; empty while a character is incomplete."""
        if token_id in self._skip:
            return ""
        self._window.append(token_id)
        text = self._decode(self._window)
        if not text.endswith(REPLACEMENT):
            return self._advance(text, start=self._num_context)
        if len(self._window) - self._num_context < MAX_CHARACTER_TOKENS:
            return ""
        # Too long for one character: bytes that are no text. Only the last U+FFFD may still turn into one, with the bytes that follow.
        return self._advance(text, start=len(self._window) - MAX_CHARACTER_TOKENS + 1, num_held=1)

    def flush(self) -> str:
        """Return what was held back: incomplete characters as U+FFFD. Nothing may be pushed after it."""
        return self._decode(self._window)[self._num_sent :]

    def _advance(self, text: str, *, start: int, num_held: int = 0) -> str:
        """Return the new part of ``text`` without its last ``num_held`` characters; the window goes on from its token ``start``."""
        piece = text[self._num_sent : len(text) - num_held]
        self._window = self._window[start:]
        self._num_context = 0 if num_held else len(self._window)
        self._num_sent = max(len(self._decode(self._window)) - num_held, 0)
        return piece
