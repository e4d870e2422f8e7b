"""The sequences' lists of blocks as rows of one matrix on the host, so that a step costs what changed and not what is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from handlers.engine.scheduler import Chunk

Ints = npt.NDArray[np.int32]

_FIRST_ROWS = 8


@dataclass(slots=True)
class _Owner:
    """Whose row it is: ``block_ids`` is the sequence's own list, which only grows; the row has those of the first ``end`` tokens."""

    row: int
    block_ids: list[int]
    end: int


class BlockTables:
    """A row of ``numbers`` ``(num_rows, width)`` for each sequence that has been met; the rest of a row is unknown. Not thread-safe.

    Nobody says when a sequence ends: rows of those that are not in the step are taken back when there are no others.
    """

    def __init__(self, width: int, block_tokens: int) -> None:
        self.numbers: Ints = np.zeros((0, width), np.int32)
        self._block_tokens = block_tokens
        self.clear()

    def clear(self) -> None:
        """Forget all sequences."""
        self._owners: dict[str, _Owner] = {}
        self._free = list(range(len(self.numbers)))

    def update(self, chunks: Sequence[Chunk], starts: Ints, ends: Ints) -> Ints:
        """Have the blocks of all tokens up to the ends of ``chunks``, whose positions ``starts`` and ``ends`` are; return their rows."""
        rows = np.array([self._row(chunk, chunks) for chunk in chunks], np.int32)
        firsts, lasts = starts // self._block_tokens, (ends - 1) // self._block_tokens
        reached = (chunk.block_ids[first : last + 1] for chunk, first, last in zip(chunks, firsts.tolist(), lasts.tolist(), strict=True))
        counts = lasts - firsts + 1
        self.numbers[np.repeat(rows, counts), ranges(firsts, counts)] = list(chain.from_iterable(reached))
        return rows

    def _row(self, chunk: Chunk, chunks: Sequence[Chunk]) -> int:
        owner = self._owners.get(chunk.sequence_id)
        if owner is None or owner.block_ids is not chunk.block_ids or owner.end < chunk.start:
            owner = self._enter(chunk, chunks)
        owner.end = chunk.end
        return owner.row

    def _enter(self, chunk: Chunk, chunks: Sequence[Chunk]) -> _Owner:
        """Copy what lies before ``chunk``, to the row that its sequence had or to a free one."""
        before = self._owners.pop(chunk.sequence_id, None)
        row = self._take_row(chunks) if before is None else before.row
        num_before = chunk.start // self._block_tokens
        self.numbers[row, :num_before] = chunk.block_ids[:num_before]
        owner = self._owners[chunk.sequence_id] = _Owner(row, chunk.block_ids, chunk.start)
        return owner

    def _take_row(self, chunks: Sequence[Chunk]) -> int:
        if not self._free:
            absent = self._owners.keys() - {chunk.sequence_id for chunk in chunks}
            self._free = [self._owners.pop(sequence_id).row for sequence_id in absent]
        if not self._free:
            num_rows, width = self.numbers.shape
            more = max(num_rows, _FIRST_ROWS)
            self.numbers = np.concatenate((self.numbers, np.zeros((more, width), np.int32)))
            self._free = list(range(num_rows, num_rows + more))
        return self._free.pop()


def ranges(starts: Ints, counts: Ints) -> Ints:
    """Return ``starts[i], starts[i] + 1, …``, ``counts[i]`` of them, for each i one after the other."""
    ends = np.cumsum(counts, dtype=np.int32)
    return np.repeat(starts - ends + counts, counts) + np.arange(counts.sum(), dtype=np.int32)
