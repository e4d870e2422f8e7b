"""What makes guesses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from handlers.engine.scheduler import Chunk
from handlers.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class Wish:
    """Up to ``num_tokens`` guesses at what comes after the tokens of ``sequence``, whose last one is the ``chunk`` of the coming step.

    The chunk's blocks reach as far as the guesses do.
    """

    sequence: Sequence
    chunk: Chunk
    num_tokens: int


class Drafter(Protocol):
    """Guesses the next tokens of sequences. Used by one thread."""

    def draft(self, wishes: list[Wish]) -> Mapping[str, list[int]]:
        """Return guesses by the id of the sequence: as many as are wished for, fewer, or none."""
        ...

    def forget(self, sequence: Sequence) -> None:
        """Take note of the end of a sequence."""
        ...
