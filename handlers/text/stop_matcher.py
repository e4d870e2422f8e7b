"""Stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Find the first stop string in a stream of text, whatever the pieces it is cut into.

    The match that ends first wins, and of two that end together the longer one. Text that might be the beginning of a stop string is held
    back. Not thread-safe.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""
        self.is_stopped = False

    def push(self, text: str) -> str:
        """Return the text that is certainly not part of a stop string; after a match, nothing any more."""
        if self.is_stopped:
            return ""
        if not self._stop:
            return text
        text = self._held + text
        matches = [(start + len(stop), start) for stop in self._stop if (start := text.find(stop)) >= 0]
        if matches:
            self.is_stopped, self._held = True, ""
            return text[: min(matches)[1]]
        keep = max(_longest_overlap(text, stop) for stop in self._stop)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """Return the text held back: nothing more will come, so it is no stop string."""
        text, self._held = self._held, ""
        return text


def _longest_overlap(text: str, stop: str) -> int:
    """Return the length of the longest proper prefix of ``stop`` that ``text`` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
