"""What the model computes next: running sequences advance at every step, and prompts fill what is left of the token budget."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from handlers.engine.sequence import Sequence
from handlers.engine.slots import SlotPool


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive tokens of one sequence, from position ``start`` on; ``samples`` when they are its last.

    Position p lies in block ``block_ids[p // block_tokens]``; there may be more blocks than the chunk reaches. The list is the sequence's
    own and grows with it: it is valid during the step.
    """

    sequence_id: str
    start: int
    token_ids: tuple[int, ...]
    block_ids: Sequence[int]
    samples: bool

    @property
    def end(self) -> int:
        """The position after the last token: what the sequence's context measures once the chunk is computed."""
        return self.start + len(self.token_ids)


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One forward pass, as plain data: at most one chunk a sequence."""

    chunks: tuple[Chunk, ...]


class Scheduler:
    """Iteration-level scheduling, first come first served (Orca, Yu et al. 2022; chunked prefill: Sarathi, Agrawal et al. 2023).

    Every running sequence with one pending token takes part in every step. Prompts share ``prefill_chunk_tokens`` a step, the oldest first,
    so that a long prompt never stalls the running streams. A sequence holds its slot from its first chunk to ``remove``. Not thread-safe.
    """

    def __init__(self, num_slots: int, prefill_chunk_tokens: int) -> None:
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._slots = SlotPool(num_slots)
        self._waiting: deque[Sequence] = deque()
        self._running: dict[str, Sequence] = {}  # in order of admission

    @property
    def running(self) -> tuple[Sequence, ...]:
        """Sequences that hold a slot, the oldest first."""
        return tuple(self._running.values())

    @property
    def waiting(self) -> tuple[Sequence, ...]:
        """Sequences that have no slot yet, the oldest first."""
        return tuple(self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence."""
        self._waiting.append(sequence)

    def remove(self, sequence: Sequence) -> None:
        """Forget a sequence, wherever it is; its slot is free at once."""
        if sequence.slot is None:
            self._waiting.remove(sequence)
            return
        del self._running[sequence.id]
        self._slots.free(sequence.slot)
        sequence.slot = None

    def schedule(self) -> StepPlan:
        """Plan the next step; no chunks when there is nothing to do. The caller advances ``num_computed`` once the step has run."""
        decodes = [_chunk(sequence, 1) for sequence in self._running.values() if sequence.num_pending == 1]
        return StepPlan((*decodes, *self._prefill()))

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every slot is free or owned by exactly one running sequence."""
        self._slots.check_integrity([sequence.slot for sequence in self._running.values() if sequence.slot is not None])

    def _prefill(self) -> Iterator[Chunk]:
        budget = self._prefill_chunk_tokens
        for sequence in self._prompts():
            num_tokens = min(sequence.num_pending, budget)
            yield _chunk(sequence, num_tokens)
            budget -= num_tokens
            if not budget:
                return

    def _prompts(self) -> Iterator[Sequence]:
        """Sequences whose prompt is not read yet, the oldest first; taking a waiting one gives it a slot."""
        yield from [sequence for sequence in self._running.values() if sequence.num_pending > 1]
        while self._waiting and self._slots.num_free:
            sequence = self._waiting.popleft()
            sequence.slot = self._slots.allocate()
            self._running[sequence.id] = sequence
            yield sequence


def _chunk(sequence: Sequence, num_tokens: int) -> Chunk:
    assert sequence.slot is not None
    start = sequence.num_computed
    token_ids = tuple(sequence.token_ids[start : start + num_tokens])
    return Chunk(sequence.id, sequence.slot, start, token_ids, samples=num_tokens == sequence.num_pending)
