"""Guess that what followed the last few tokens before follows them again (prompt lookup, Saxena 2023), in this sequence or a recent one."""

from __future__ import annotations

from handlers.engine.sequence import Sequence
from handlers.engine.speculation.drafter import Wish

_SIZES = (4, 3, 2, 1)
"""Tokens that must agree; the longest match guesses."""
_MOST_GUESSES = {1: 4}
"""After so short a match no more is guessed: it is often a coincidence."""
_RECENT_TOKENS = 16_384
_STEP_TOKENS = 8192
"""So many of a prompt are read in a step, in some 20 ms: a long one must not make all others wait."""
_BETWEEN = -1
"""Between two sequences: no token, so that no guess crosses it."""


class NgramIndex:
    """A text that grows, and where each of its n-grams was last followed by another token. Not thread-safe."""

    def __init__(self) -> None:
        self._token_ids: list[int] = []
        self._followers: dict[tuple[int, ...], int] = {}  # n-gram → the position after its latest occurrence

    def __len__(self) -> int:
        """Tokens that it has."""
        return len(self._token_ids)

    def extend(self, token_ids: list[int]) -> None:
        """Add tokens at the end."""
        known = self._token_ids
        for token_id in token_ids:
            for size in _SIZES:
                if len(known) >= size:
                    self._followers[tuple(known[-size:])] = len(known)
            known.append(token_id)

    def guess(self, ngram: tuple[int, ...], num_tokens: int) -> list[int]:
        """Return up to ``num_tokens`` that followed ``ngram``, and beyond the end what was copied: a repetition goes on."""
        position = self._followers.get(ngram)
        if position is None:
            return []
        period = len(self._token_ids) - position
        guess = [self._token_ids[position + index % period] for index in range(num_tokens)]
        return guess[: guess.index(_BETWEEN)] if _BETWEEN in guess else guess


class NgramDrafter:
    """A Drafter without a model. It remembers what was generated lately: answers to like requests are often alike in part.

    That is seen in the time that an answer takes, as with a prefix cache, and in nothing else.
    """

    def __init__(self) -> None:
        self._own: dict[str, NgramIndex] = {}
        self._recent, self._older = NgramIndex(), NgramIndex()

    def draft(self, wishes: list[Wish]) -> dict[str, list[int]]:
        """Guess; see Drafter."""
        return {wish.sequence.id: self._guess(wish) for wish in wishes}

    def forget(self, sequence: Sequence) -> None:
        """Keep what it has generated, for others, and what it was generated after."""
        self._own.pop(sequence.id, None)
        if len(self._recent) >= _RECENT_TOKENS:
            self._recent, self._older = NgramIndex(), self._recent
        self._recent.extend([*sequence.token_ids[max(sequence.num_prompt_tokens - _SIZES[0], 0) :], _BETWEEN])

    def _guess(self, wish: Wish) -> list[int]:
        token_ids = wish.sequence.token_ids
        own = self._own.setdefault(wish.sequence.id, NgramIndex())
        own.extend(token_ids[len(own) : len(own) + _STEP_TOKENS])
        if len(own) < len(token_ids):
            return []
        for size in _SIZES:
            if size > len(token_ids):
                continue
            ngram, num_tokens = tuple(token_ids[-size:]), min(wish.num_tokens, _MOST_GUESSES.get(size, wish.num_tokens))
            guess = own.guess(ngram, num_tokens) or self._recent.guess(ngram, num_tokens) or self._older.guess(ngram, num_tokens)
            if guess:
                return guess
        return []
