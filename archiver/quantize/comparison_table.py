"""A comparison as a table in the terminal, or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from archiver.display import show_json
from archiver.quantize.comparison import Comparison, Row
from archiver.quantize.receipt import Quality
from archiver.quantize.speed import STREAMS

_NONE = "-"
_LEAST_WIDTH = 120  # a file, and a terminal that wraps, keep the numbers whole


def show_comparison(comparison: Comparison, out: Path, *, as_json: bool) -> None:
    """Print the comparison, of which ``out`` holds the rest."""
    if as_json:
        show_json(comparison.to_dict())
        return
    console = Console(width=max(Console().width, _LEAST_WIDTH), soft_wrap=True, highlight=False, markup=False)
    console.print(as_table(comparison))
    for line in _remarks(comparison):
        console.print(line)
    recommendation = comparison.recommendation
    console.print(f"recommended: {recommendation.name or 'none'}. {recommendation.reason}")
    console.print(f"results, table and plot: {out}")


def as_table(comparison: Comparison) -> Table:
    """Return a line for each row, the recommended one in bold."""
    speeds = [f"tok/s x{streams}" for streams in STREAMS]
    table = Table(box=None, header_style="bold", title=f"{comparison.model} on {comparison.machine}", title_justify="left")
    table.add_column("recipe", no_wrap=True)
    for label in ("size", "smaller", "perplexity", "KL", "top-1", *speeds, "made in", "budget"):
        table.add_column(label, justify="right", no_wrap=True)
    recommended = comparison.recommendation.name
    for row in comparison.rows:
        table.add_row(*_cells(row, comparison), style="bold green" if row.name == recommended else "dim" if row.problem else None)
    return table


def _cells(row: Row, comparison: Comparison) -> Iterator[str]:
    yield row.name
    if row.problem:
        yield from [_NONE] * (5 + len(STREAMS) + 1)
        yield "failed"
        return
    yield decimal(row.weight_bytes)
    yield f"{comparison.source.weight_bytes / row.weight_bytes:.2f}x"
    yield from _quality_cells(row.receipt.quality if row.receipt else None, comparison)
    yield from (f"{row.tokens_per_s[streams].median:.0f}" if streams in row.tokens_per_s else _NONE for streams in STREAMS)
    yield f"{row.receipt.seconds:.0f} s" if row.receipt else _NONE
    yield "exceeded" if row.exceeded else "ok"


def _quality_cells(quality: Quality | None, comparison: Comparison) -> tuple[str, str, str]:
    if quality is None:  # the source's own
        before = comparison.perplexity_before
        return (f"{before:.3f}" if before is not None else _NONE, "0", "100.0%")
    return f"{quality.perplexity_after:.3f}", f"{quality.kl:.2g}", f"{quality.top1_agreement:.1%}"


def _remarks(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        if row.problem:
            yield f"{row.name} failed: {row.problem}"
        yield from (f"{row.name} exceeds its budget: {sentence}" for sentence in row.exceeded)
