"""A comparison as a picture: how fast each recipe makes the model, and what it costs in quality and size."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from archiver.quantize.comparison import Comparison, Row
from archiver.quantize.speed import STREAMS

_LEAST_KL = 1e-5  # a logarithmic axis has no zero
_LARGEST_DOT = 900.0  # square points, of the largest model
_COLOURS = {"recommended": "#2a9d4a", "within the budget": "#3b6fb6", "exceeds the budget": "#c0392b", "source": "#777777"}


def plot_comparison(comparison: Comparison, file: Path) -> None:
    """Write a PNG: right is faster, down is closer to the source, and a smaller dot is a smaller model."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots()
    shown = [row for row in comparison.rows if row.tokens_per_s and math.isfinite(_kl(row))]
    for index, row in enumerate(sorted(shown, key=_kl)):
        _draw(axes, row, comparison, label_height=(index + 0.5) / len(shown))
    if limit := comparison.budget.get("kl"):
        colour = _COLOURS["exceeds the budget"]
        axes.axhline(limit, color=colour, linestyle="--", linewidth=1)
        axes.annotate(f"budget: {limit:g}", (0.01, limit), xycoords=("axes fraction", "data"), va="bottom", color=colour)
    axes.set_yscale("log")
    axes.margins(0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"tokens/s at {max(STREAMS)} streams (right is faster)")
    axes.set_ylabel("KL divergence from the source, nats (down is closer)")
    axes.set_title(f"{comparison.model} on {comparison.machine}\nrecommended: {comparison.recommendation.name or 'none'}", fontsize=11)
    axes.grid(alpha=0.25)
    figure.savefig(file, dpi=130)


def _draw(axes: Any, row: Row, comparison: Comparison, *, label_height: float) -> None:
    """Draw a dot, and its label right of the axes, where labels cannot meet: they stand in the order of their dots."""
    point = (row.top_speed, max(_kl(row), _LEAST_KL))
    area = _LARGEST_DOT * row.weight_bytes / max(each.weight_bytes for each in comparison.rows)
    standing = _standing(row, comparison)
    colour = _COLOURS[standing]
    axes.scatter(*point, s=area, color=colour, alpha=0.7, linewidths=0)
    axes.annotate(
        f"{row.name}\n{decimal(row.weight_bytes)}, {row.top_speed:.0f} tokens/s",
        point,
        xytext=(1.03, label_height),
        textcoords="axes fraction",
        va="center",
        fontsize=8,
        fontweight="bold" if standing == "recommended" else "normal",
        color=colour,
        arrowprops={"arrowstyle": "-", "color": colour, "alpha": 0.35},
    )


def _standing(row: Row, comparison: Comparison) -> str:
    if row.name == comparison.recommendation.name:
        return "recommended"
    if row is comparison.source:
        return "source"
    return "exceeds the budget" if row.exceeded else "within the budget"


def _kl(row: Row) -> float:
    quality = row.receipt.quality if row.receipt else None
    return quality.kl if quality else 0.0
