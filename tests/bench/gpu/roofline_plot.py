"""Plot tokens/s over streams, a panel for each context: what was measured, beside the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.bench.gpu.rows import Row

_BOUND_OF = "offline"


def plot_roofline(rows: Sequence[Row], path: Path, title: str) -> None:
    """Write a PNG of the rows that have tokens/s; none when there are none."""
    from matplotlib.figure import Figure

    measured = [row for row in rows if "tokens_per_s" in row.figures]
    contexts = sorted({row.cell.context for row in measured})
    if not contexts:
        return
    figure = Figure(figsize=(5 * len(contexts), 4.5), layout="constrained")
    figure.suptitle(title)
    panels = figure.subplots(1, len(contexts), squeeze=False, sharey=True)[0]
    for axes, context in zip(panels, contexts, strict=True):
        here = [row for row in measured if row.cell.context == context]
        for part, who in dict.fromkeys((row.part, row.who) for row in here):
            axes.plot(
                *_curve([row for row in here if (row.part, row.who) == (part, who)], "tokens_per_s"), marker="o", label=f"{part}: {who}"
            )
        axes.plot(*_curve([row for row in here if row.part == _BOUND_OF], "bound_tokens_per_s"), "k--", label="roofline of a step")
        streams = sorted({row.cell.streams for row in here})
        axes.set_title(f"{context} tokens of context")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("streams")
        axes.set_xticks(streams, [str(each) for each in streams])
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("output tokens/s, all streams")
    panels[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _curve(rows: Sequence[Row], figure: str) -> tuple[list[int], list[float]]:
    points = sorted((row.cell.streams, row.figures[figure]) for row in rows)
    return [streams for streams, _ in points], [value for _, value in points]
