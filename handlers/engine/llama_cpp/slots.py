"""Which of llama.cpp's slots holds which sequence, and what a new sequence can share of the others."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from handlers.engine.llama_cpp.library import SlotMemory
from handlers.engine.scheduler import Chunk


@dataclass(eq=False, slots=True)
class Slot:
    """A sequence id of llama.cpp's, and the tokens whose keys and values it holds, from position 0 on.

    ``block_ids`` is the very list of the sequence that has it: another list means another sequence, or one that was started anew.
    """

    index: int
    token_ids: list[int] = field(default_factory=list)
    block_ids: list[int] = field(default_factory=list)


class SlotTable:
    """A cache of computed sequences: a slot stays as it is after its sequence has ended, until it is the least recently used.

    Losing a slot costs time only: whoever needs it again computes it again. So nobody has to tell this table that a sequence has ended.
    Not thread-safe.
    """

    def __init__(self, memory: SlotMemory, num_slots: int) -> None:
        self._memory = memory
        self._num_slots = num_slots
        self.clear()

    def clear(self) -> None:
        """Forget all slots."""
        self._memory.clear()
        self._free = [Slot(index) for index in range(self._num_slots)]
        self._by_sequence: OrderedDict[str, Slot] = OrderedDict()  # the least recently used first

    def resume(self, chunk: Chunk) -> Slot | None:
        """Return the slot that holds all that comes before ``chunk``, if it has computed that itself."""
        slot = self._by_sequence.get(chunk.sequence_id)
        if slot is None or slot.block_ids is not chunk.block_ids or len(slot.token_ids) != chunk.start:
            return None
        self._by_sequence.move_to_end(chunk.sequence_id)
        return slot

    def claim(self, chunk: Chunk, token_ids: Sequence[int]) -> Slot:
        """Return a slot for the sequence of ``chunk``: it holds the ``token_ids`` before it, or as many of the first as any slot has."""
        slot = self._by_sequence.get(chunk.sequence_id) or self._begin(chunk.sequence_id, token_ids)
        slot.block_ids = chunk.block_ids
        self._by_sequence.move_to_end(chunk.sequence_id)
        num_shared = _num_shared(slot.token_ids, token_ids)
        self._memory.remove(slot.index, num_shared)
        del slot.token_ids[num_shared:]
        return slot

    def evict(self, keep: Collection[Slot]) -> bool:
        """Empty the least recently used slot beside those to ``keep``; False if there is none."""
        victim = next((name for name, slot in self._by_sequence.items() if slot not in keep), None)
        if victim is None:
            return False
        slot = self._by_sequence.pop(victim)
        self._empty(slot)
        self._free.append(slot)
        return True

    def _begin(self, sequence_id: str, token_ids: Sequence[int]) -> Slot:
        source = self._most_shared(token_ids)
        slot = self._free.pop() if self._free else self._by_sequence.popitem(last=False)[1]
        self._by_sequence[sequence_id] = slot
        if slot is source:
            return slot  # taken over as it is
        self._empty(slot)
        if source is not None and (num_shared := _num_shared(source.token_ids, token_ids)):
            self._memory.copy(source.index, slot.index, num_shared)
            slot.token_ids = source.token_ids[:num_shared]
        return slot

    def _most_shared(self, token_ids: Sequence[int]) -> Slot | None:
        slots = self._by_sequence.values()
        return max(reversed(slots), key=lambda slot: _num_shared(slot.token_ids, token_ids), default=None) if token_ids else None

    def _empty(self, slot: Slot) -> None:
        self._memory.remove(slot.index, 0)
        slot.token_ids = []


def _num_shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two sequences have in common from their beginning."""
    lengths = range(1, min(len(first), len(second)) + 1)
    return bisect_left(lengths, True, key=lambda length: first[:length] != second[:length])
