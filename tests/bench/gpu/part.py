"""A part of the benchmark: cells that are measured one after the other as long as there is time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from tests.bench.gpu.budget import Allotment, Pace
from tests.bench.gpu.rows import Cell, Row

_LONGEST_NOTE = 160


class Part(Protocol):
    """One kind of measurement. ``name`` and ``who`` is measured stand in its rows."""

    @property
    def name(self) -> str: ...

    @property
    def who(self) -> str: ...

    @property
    def cells(self) -> Sequence[Cell]:
        """In the order of their importance."""
        ...

    def least_s(self, cell: Cell) -> float:
        """Return the time that measuring takes at the roofline."""
        ...

    def measure(self, cell: Cell) -> Mapping[str, float]:
        """Return figures; whatever is raised becomes the row's note."""
        ...


def run_part(part: Part, allotment: Allotment, add: Callable[[Row], None]) -> None:
    """Measure the cells of a part; one that there is no time for, or that fails, is a row that says so."""
    pace = Pace()
    for cell in part.cells:
        expected_s, left_s = pace.expected_s(part.least_s(cell)), allotment.left_s
        if expected_s > left_s:
            add(Row(part.name, part.who, cell, note=f"skipped: out of time, about {expected_s:.0f} s needed and {left_s:.0f} left"))
        else:
            add(_measure(part, cell, pace))


def _measure(part: Part, cell: Cell, pace: Pace) -> Row:
    started_s = time.monotonic()
    try:
        figures = part.measure(cell)
    except Exception as error:  # noqa: BLE001 - peers, drivers, memory: the other cells are measured all the same
        return Row(part.name, part.who, cell, note=_first_line(error))
    pace.note(part.least_s(cell), time.monotonic() - started_s)
    return Row(part.name, part.who, cell, figures)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}"[:_LONGEST_NOTE]
