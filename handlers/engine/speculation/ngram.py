"""Guess that what followed the last few tokens earlier in the sequence follows them again (prompt lookup, Saxena 2023)."""

from __future__ import annotations

from collections.abc import Sequence

from handlers.engine.speculation.drafter import Wish

_SIZES = (4, 3, 2)
"""Tokens that must agree; the longest match guesses."""


class NgramIndex:
    """Where each n-gram of one growing sequence was last followed by another token. Not thread-safe."""

    def __init__(self) -> None:
        self._followers: dict[tuple[int, ...], int] = {}  # n-gram → the position after its latest occurrence
        self._num_read = 1

    def guess(self, token_ids: Sequence[int], num_tokens: int) -> list[int]:
        """Return up to ``num_tokens`` that may come after ``token_ids``, which begin as they did at the call before."""
        self._read(token_ids)
        for size in _SIZES:
            position = self._followers.get(tuple(token_ids[-size:])) if len(token_ids) >= size else None
            if position is not None:
                return _copy(token_ids, position, num_tokens)
        return []

    def _read(self, token_ids: Sequence[int]) -> None:
        for position in range(self._num_read, len(token_ids)):
            for size in _SIZES:
                if position >= size:
                    self._followers[tuple(token_ids[position - size : position])] = position
        self._num_read = max(self._num_read, len(token_ids))


class NgramDrafter:
    """A Drafter without a model."""

    def __init__(self) -> None:
        self._indexes: dict[str, NgramIndex] = {}

    def draft(self, wishes: Sequence[Wish]) -> dict[str, list[int]]:
        """Guess; see Drafter."""
        return {wish.sequence.id: self._index(wish).guess(wish.sequence.token_ids, wish.num_tokens) for wish in wishes}

    def forget(self, sequence_id: str) -> None:
        """See Drafter."""
        self._indexes.pop(sequence_id, None)

    def _index(self, wish: Wish) -> NgramIndex:
        return self._indexes.setdefault(wish.sequence.id, NgramIndex())


def _copy(token_ids: Sequence[int], position: int, num_tokens: int) -> list[int]:
    """Copy what follows ``position``, and beyond the end what was copied: a repetition goes on for as long as is wanted."""
    period = len(token_ids) - position
    return [token_ids[position + index % period] for index in range(num_tokens)]
