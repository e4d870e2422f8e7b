"""The rows as short tables, and what was to be reached beside what was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from rich.table import Table

from tests.bench.gpu.kernels import Kind
from tests.bench.gpu.rows import Row

_THROUGHPUT_PARTS = ("offline", "served", "peers")


@dataclass(frozen=True)
class Goal:
    """At least ``least`` of a figure in the best of a part's rows; ``streams`` or ``context`` 0: in whichever cell."""

    what: str
    part: str
    figure: str
    least: float
    streams: int = 0
    context: int = 0

    def reached(self, rows: Iterable[Row]) -> float | None:
        """Return the figure; None where it was not measured."""
        found = [row.figures[self.figure] for row in rows if self._is_about(row) and self.figure in row.figures]
        return max(found, default=None)

    def _is_about(self, row: Row) -> bool:
        return row.part == self.part and self.streams in (0, row.cell.streams) and self.context in (0, row.cell.context)


GOALS = {
    "8b": (
        Goal("tokens/s, 1 stream", "offline", "tokens_per_s", 210, 1, 1024),
        Goal("tokens/s, 64 × 1K", "offline", "tokens_per_s", 8700, 64, 1024),
        Goal("tokens/s, 256 × 1K", "offline", "tokens_per_s", 17000, 256, 1024),
        Goal("GPU busy, 64 × 1K", "split", "busy_share", 0.95, 64, 1024),
        Goal("prefill, share of the matrix peak", "prefill", "share_of_peak", 0.5),
    )
}
"""For one H200, by the model's shape."""


def tables(rows: Sequence[Row], shape: str) -> Iterator[Table]:
    """Yield what there are rows for: throughput, prefill, split, goals."""
    for part, make in (("", _throughput), ("prefill", _prefill), ("split", _split)):
        chosen = [row for row in rows if (row.part == part if part else row.part in _THROUGHPUT_PARTS)]
        if chosen:
            yield make(chosen)
    if shape in GOALS:
        yield _goals(GOALS[shape], rows)


def notes(rows: Iterable[Row]) -> Iterator[str]:
    """Yield why cells have no figures, those together that have the same reason."""
    reasons = [(f"{row.part} {row.who}", str(row.cell), row.note) for row in rows if row.note]
    for what, note in dict.fromkeys((what, note) for what, _, note in reasons):
        yield f"{what}, {', '.join(cell for each, cell, why in reasons if (each, why) == (what, note))}: {note}"


def _throughput(rows: Sequence[Row]) -> Table:
    streams = sorted({row.cell.streams for row in rows})
    table = Table("", "context", *map(str, streams), title="tokens/s by streams, and their share of the roofline")
    for part, who, context in dict.fromkeys((row.part, row.who, row.cell.context) for row in rows):
        cells = {row.cell.streams: _speed(row) for row in rows if (row.part, row.who, row.cell.context) == (part, who, context)}
        table.add_row(f"{part}: {who}", str(context), *(cells.get(each, "") for each in streams))
    return table


def _speed(row: Row) -> str:
    return f"{row.figures['tokens_per_s']:.0f} ({row.figures['share_of_bound']:.0%})" if row.figures else "–"


def _prefill(rows: Sequence[Row]) -> Table:
    table = Table("prompts", "tokens", "first token ms", "tokens/s", "TFLOP/s", "of matrix peak", title="prompts on an idle engine")
    for row in rows:
        names = (("first_token_ms", ".1f"), ("prompt_tokens_per_s", ".0f"), ("tflops", ".0f"), ("share_of_peak", ".0%"))
        table.add_row(str(row.cell.streams), str(row.cell.context), *_figures(row, names))
    return table


def _split(rows: Sequence[Row]) -> Table:
    table = Table("streams", "context", "step ms", "busy", "host", *Kind, title="steps under the profiler: shares of their time")
    for row in rows:
        shares = [(f"{kind}_share", ".1%") for kind in ("busy", "host", *Kind)]
        table.add_row(str(row.cell.streams), str(row.cell.context), *_figures(row, (("step_ms", ".2f"), *shares)))
    return table


def _goals(goals: Sequence[Goal], rows: Sequence[Row]) -> Table:
    table = Table("goal on one H200", "at least", "measured", "", title="goals")
    for goal in goals:
        found = goal.reached(rows)
        verdict = "" if found is None else "reached" if found >= goal.least else f"{found / goal.least:.0%} of it"
        table.add_row(goal.what, f"{goal.least:g}", "not measured" if found is None else f"{found:.4g}", verdict)
    return table


def _figures(row: Row, names: Sequence[tuple[str, str]]) -> list[str]:
    return [format(row.figures[name], digits) if name in row.figures else "–" for name, digits in names]
