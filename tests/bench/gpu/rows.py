"""What a run says, a row for each measured cell; rows of several runs add up in one file."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.gpu.roofline import Ceilings
from tests.bench.report import Machine, write_json

_FIRST_STREAMS = (1, 64, 256)
_FIRST_CONTEXT = 1024


@dataclass(frozen=True)
class Cell:
    """So many sequences at once, each with a prompt of ``context`` tokens."""

    streams: int
    context: int

    def __str__(self) -> str:
        return f"{self.streams} × {self.context}"


@dataclass(frozen=True)
class Row:
    """The figures of one cell, or in ``note`` why there are none. Their names carry the units; a share is of 1."""

    part: str
    who: str
    cell: Cell
    figures: Mapping[str, float] = field(default_factory=dict)
    note: str = ""
    at: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S"))

    def __str__(self) -> str:
        said = self.note or ", ".join(f"{name} {value:.4g}" for name, value in self.figures.items())
        return f"{self.part} {self.who} {self.cell}: {said}"


class OtherDevice(Exception):
    """The file's rows were measured on another device."""


@dataclass
class Results:
    """The rows of one model's shape on one device, and the file that keeps them."""

    path: Path
    device: str
    shape: str
    machine: Machine
    ceilings: Ceilings
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def beside_earlier(cls, path: Path, device: str, shape: str, machine: Machine, ceilings: Ceilings) -> Results:
        """Take up what earlier runs have left in the file; raise OtherDevice."""
        results = cls(path, device, shape, machine, ceilings)
        if path.exists():
            earlier = json.loads(path.read_text())
            if earlier["device"] != device:
                raise OtherDevice(f"{path} holds figures of {earlier['device']}, and this is {device}: name another directory with --out")
            results.rows = [Row(**{**row, "cell": Cell(**row["cell"])}) for row in earlier["rows"]]
        return results

    def add(self, row: Row) -> None:
        """Keep a row in place of the one before it, unless that one has figures and the new one none; write the file."""
        place = next((place for place, each in enumerate(self.rows) if _key(each) == _key(row)), None)
        if place is None:
            self.rows.append(row)
        elif row.figures or not self.rows[place].figures:
            self.rows[place] = row
        self.write()

    def write(self) -> None:
        """Write the file."""
        head = {"device": self.device, "shape": self.shape, "ceilings": self.ceilings}
        write_json(self.path, self.machine, head | {"rows": self.rows})


def cells_by_importance(streams: Sequence[int], contexts: Sequence[int]) -> list[Cell]:
    """Return all cells, those first that goals are set for: whatever time is left for the others."""
    columns = _first(streams, _FIRST_STREAMS)
    return [Cell(column, context) for context in _first(contexts, (_FIRST_CONTEXT,)) for column in columns]


def _first(values: Iterable[int], favoured: Sequence[int]) -> list[int]:
    return sorted(set(values), key=lambda value: (value not in favoured, value))


def _key(row: Row) -> tuple[str, str, Cell]:
    return row.part, row.who, row.cell
