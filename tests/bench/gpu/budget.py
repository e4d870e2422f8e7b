"""Time for a whole run, divided among its parts; a cell that would not end in time is not begun."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_FIRST_GUESS = 6.0
_MARGIN = 1.5


class Budget:
    """``seconds`` for all parts, from now on; what a part leaves goes to those after it.

    ``shares``: the parts to come, and what each gets of the time that is left when it begins, in proportion.
    """

    def __init__(self, seconds: float, shares: Mapping[str, float], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end_s = clock() + seconds
        self._to_come = dict(shares)

    def begin(self, part: str) -> Allotment:
        """Return the time of a part that begins now; each part begins once."""
        to_come = sum(self._to_come.values())
        now_s = self._clock()
        return Allotment(now_s + max(self._end_s - now_s, 0.0) * self._to_come.pop(part) / to_come, self._clock)


@dataclass(frozen=True)
class Allotment:
    """Time that ends at ``end_s`` on the clock."""

    end_s: float
    clock: Callable[[], float] = time.monotonic

    @property
    def left_s(self) -> float:
        """Seconds from now on, 0 at least."""
        return max(self.end_s - self.clock(), 0.0)


@dataclass
class Pace:
    """By how much longer cells take than the roofline says.

    The least ratio so far counts, as whoever comes first pays for compilation, and a margin on top.
    """

    ratios: list[float] = field(default_factory=list)

    def note(self, least_s: float, took_s: float) -> None:
        """Learn from a cell."""
        self.ratios.append(took_s / least_s)

    def expected_s(self, least_s: float) -> float:
        """Return what a cell will take that takes ``least_s`` at the roofline."""
        return least_s * (_MARGIN * min(self.ratios) if self.ratios else _FIRST_GUESS)
