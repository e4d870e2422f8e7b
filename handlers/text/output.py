"""What a request's token ids become: text, without the stop string and all that follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from handlers.text.detokenizer import IncrementalDetokenizer
from handlers.text.stop_matcher import StopMatcher


class TextOutput:
    """Detokenize one sequence and end it at its first stop string; ``skip`` names tokens that are no text.

    ``num_tokens`` counts the tokens up to and including the one that completed the stop string: what a client is told it used.
    Not thread-safe.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), skip: frozenset[int] = frozenset()) -> None:
        self._detokenizer = IncrementalDetokenizer(decode, skip)
        self._matcher = StopMatcher(stop)
        self.num_tokens = 0

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was met; later tokens are ignored."""
        return self._matcher.is_stopped

    def push(self, token_ids: Sequence[int], num_stop_tokens: int = 0) -> str:
        """Return the new text; the last ``num_stop_tokens`` of ``token_ids`` are counted, but they are no text."""
        num_text_tokens = len(token_ids) - num_stop_tokens
        text = ""
        for index, token_id in enumerate(token_ids):
            if self.is_stopped:
                break
            self.num_tokens += 1
            if index < num_text_tokens:
                text += self._matcher.push(self._detokenizer.push(token_id))
        return text

    def finish(self) -> str:
        """Return the text that was still held back."""
        if self.is_stopped:
            return ""
        return self._matcher.push(self._detokenizer.flush()) + self._matcher.flush()
