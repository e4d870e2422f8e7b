"""Plot tokens/s over streams, a panel for each context: what was measured, beside the roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.bench.gpu.rows import Row

_BOUND_OF = "offline"


def plot_roofline(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write a PNG of the rows that have tokens/s; none when there are none."""
    from matplotlib.figure import Figure

    measured = [row for row in rows if "tokens_per_s" in row.figures]
    contexts = sorted({row.cell.context for row in measured})
    if not contexts:
        return
    figure = Figure(figsize=(1.5 + 4.5 * len(contexts), 5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(contexts), squeeze=False, sharey=True)[0]
    colours = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(map(_name, measured)))}
    lines: dict[str, Any] = {}
    for axes, context in zip(panels, contexts, strict=True):
        lines |= _panel(axes, [row for row in measured if row.cell.context == context], colours)
        axes.set_title(f"{context} tokens of context")
    panels[0].set_ylabel("output tokens/s, all streams")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _panel(axes: Any, rows: Sequence[Row], colours: Mapping[str, str]) -> dict[str, Any]:
    """Draw the curves of one context; return its lines by their labels."""
    lines = {}
    for name in dict.fromkeys(map(_name, rows)):
        points = _curve([row for row in rows if _name(row) == name], "tokens_per_s")
        [lines[name]] = axes.plot(*points, marker="o", color=colours[name])
    bounds = _curve([row for row in rows if row.part == _BOUND_OF], "bound_tokens_per_s")
    [lines["roofline of a step"]] = axes.plot(*bounds, "k--")
    streams = sorted({row.cell.streams for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("streams")
    axes.set_xticks(streams, [str(each) for each in streams])
    axes.grid(alpha=0.3)
    return lines


def _name(row: Row) -> str:
    return f"{row.part}: {row.who}"


def _curve(rows: Sequence[Row], figure: str) -> tuple[list[int], list[float]]:
    points = sorted((row.cell.streams, row.figures[figure]) for row in rows)
    return [streams for streams, _ in points], [value for _, value in points]
