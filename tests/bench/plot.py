"""Plot a sweep over numbers of streams: tokens a second, and the time to the first text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.figures import Spread, Summary


def plot_serving(summaries: Sequence[Summary], path: Path, title: str) -> None:
    """Write a PNG: medians, with bars from the lowest to the highest repeat."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    speed, first_text = figure.subplots(1, 2)
    _sweep(speed, "output tokens/s, all streams", summaries, lambda each: each.tokens_per_s)
    _sweep(first_text, "time to first text, p50, ms", summaries, lambda each: each.first_text_p50_ms)
    first_text.set_yscale("log")
    speed.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _sweep(axes: Any, title: str, summaries: Sequence[Summary], pick: Callable[[Summary], Spread]) -> None:
    for contestant in dict.fromkeys(each.contestant for each in summaries):
        points = [each for each in summaries if each.contestant == contestant]
        spreads = [pick(each) for each in points]
        errors = [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]
        axes.errorbar([each.streams for each in points], [each.median for each in spreads], errors, marker="o", capsize=3, label=contestant)
    axes.set_title(title)
    axes.set_xscale("log", base=2)
    axes.set_xlabel("streams")
    axes.set_xticks([each.streams for each in summaries], [str(each.streams) for each in summaries])
    axes.grid(alpha=0.3)
