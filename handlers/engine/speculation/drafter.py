"""What makes guesses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from handlers.engine import sequence as engine_sequence
from handlers.engine.scheduler import Chunk


@dataclass(frozen=True, slots=True)
class Wish:
    """Up to ``num_tokens`` guesses at what comes after the tokens of ``sequence``, whose last one is the ``chunk`` of the coming step.

    The chunk's blocks reach as far as the guesses do.
    """

    sequence: engine_sequence.Sequence
    chunk: Chunk
    num_tokens: int


class Drafter(Protocol):
    """Guesses the next tokens of sequences. Used by one thread."""

    def draft(self, wishes: Sequence[Wish]) -> Mapping[str, Sequence[int]]:
        """Return guesses by the id of the sequence: as many as are wished for, fewer, or none."""
        ...

    def forget(self, sequence: engine_sequence.Sequence) -> None:
        """Take note of the end of a sequence."""
        ...
