"""How many tokens ahead it pays to guess for one sequence: as many as proved right lately, and none where guesses are mostly wrong."""

from __future__ import annotations

_FIRST_TOKENS = 4
_LEAST_TOKENS = 2
_MEMORY = 0.75
"""Weight of what was known before beside the latest step."""
_LEAST_SHARE = 0.1
"""Of the guesses must be right. One more row makes a step 2 to 3 % longer, as long as it is bound by reading the weights."""
_TRIED_TOKENS = 24
"""Guesses before that is judged."""
_FIRST_PAUSE_TOKENS = 16
_LONGEST_PAUSE_TOKENS = 1024


class DraftPace:
    """The length of one sequence's next guess. Not thread-safe.

    It doubles when all of a guess was right, and shrinks to one beyond what was right otherwise. Where less than a tenth is right it is
    switched off: for 16 generated tokens, and for twice as many each time it turns out to be no better.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._num_tokens = min(_FIRST_TOKENS, max_tokens)
        self._drafts = self._accepted = 0.0  # weighted by how recent they are
        self._num_tried = 0
        self._pause_tokens = _FIRST_PAUSE_TOKENS
        self._resumes_at = 0

    def num_tokens(self, num_generated: int) -> int:
        """Return how many tokens to guess for a sequence that has generated so many."""
        return self._num_tokens if num_generated >= self._resumes_at else 0

    def note(self, num_drafts: int, num_accepted: int, num_generated: int) -> None:
        """Take in that of ``num_drafts`` guesses so many were right; the sequence has now generated ``num_generated`` tokens."""
        if num_accepted == num_drafts:
            self._num_tokens = min(max(self._num_tokens, 2 * num_drafts), self._max_tokens)
        else:
            self._num_tokens = min(max(num_accepted + 1, _LEAST_TOKENS), self._max_tokens)
        self._drafts = _MEMORY * self._drafts + num_drafts
        self._accepted = _MEMORY * self._accepted + num_accepted
        self._num_tried += num_drafts
        if self._num_tried < _TRIED_TOKENS:
            return
        if self._accepted >= _LEAST_SHARE * self._drafts:
            self._pause_tokens = _FIRST_PAUSE_TOKENS
            return
        self._resumes_at = num_generated + self._pause_tokens
        self._pause_tokens = min(2 * self._pause_tokens, _LONGEST_PAUSE_TOKENS)
        self._drafts = self._accepted = 0.0
        self._num_tried = 0
