"""Which KV slots are free: the lowest free one is handed out first, so that the used ones lie side by side."""

from __future__ import annotations

import heapq
from collections.abc import Collection


class SlotPool:
    """Slots ``0 .. num_slots - 1``, each free or allocated. Density matters: the runner reads neighbouring slots as one tensor view."""

    def __init__(self, num_slots: int) -> None:
        self.num_slots = num_slots
        self._free = list(range(num_slots))  # a heap

    @property
    def num_free(self) -> int:
        """Slots that can be allocated now."""
        return len(self._free)

    @property
    def num_used(self) -> int:
        """Slots that are allocated now."""
        return self.num_slots - len(self._free)

    def allocate(self) -> int:
        """Return the lowest free slot; raises IndexError when none is free."""
        return heapq.heappop(self._free)

    def free(self, slot: int) -> None:
        """Give a slot back."""
        heapq.heappush(self._free, slot)

    def check_integrity(self, owned: Collection[int]) -> None:
        """Raise RuntimeError unless every slot is either free or in ``owned``, once."""
        if sorted([*self._free, *owned]) != list(range(self.num_slots)):
            raise RuntimeError(f"slots free {sorted(self._free)} and owned {sorted(owned)} are not a partition of 0..{self.num_slots - 1}")
