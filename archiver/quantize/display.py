"""What ``marquee quantize`` shows: progress on standard error, recipes and results on standard output."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from rich import progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

from archiver.display import show_json, show_receipt
from archiver.quantize.receipt import Receipt
from archiver.quantize.recipes import Recipe, list_recipes


class Progress:
    """A line on a terminal with the present stage, how far it is and how long it will take; nothing elsewhere. Not thread-safe."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        columns = (progress.SpinnerColumn(), progress.TextColumn("{task.description}"), progress.BarColumn())
        counts = (progress.MofNCompleteColumn(), progress.TimeElapsedColumn(), progress.TimeRemainingColumn())
        self._bar = progress.Progress(
            *columns,
            *counts,
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
            speed_estimate_period=3600,  # seconds: rich's half a minute is less than a large layer takes
        )
        self._stage = ""
        self._task: progress.TaskID | None = None

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def update(self, stage: str, num_done: int, num_all: int) -> None:
        """Show ``stage``; what cannot be counted (one of one) moves without an end."""
        if stage != self._stage or self._task is None:
            self._remove()
            self._stage, self._task = stage, self._bar.add_task(stage, total=num_all if num_all > 1 else None)
        self._bar.update(self._task, completed=num_done)

    def announce(self, line: str) -> None:
        """Print a line that stays."""
        self._console.print(line)

    def _remove(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)


def show_recipes(*, as_json: bool) -> None:
    """Print the recipes that go by name."""
    recipes = list_recipes()
    if as_json:
        show_json({"recipes": [_describe(recipe) for recipe in recipes]})
        return
    table = Table(box=None, show_header=False)
    for recipe in recipes:
        calibrated = ", calibrated" if recipe.needs_calibration else ""
        table.add_row(Text(recipe.name, "bold"), recipe.summary)
        table.add_row("", Text(f"{recipe.format}{calibrated}", "dim"))
    Console().print(table, highlight=False, markup=False)


def show_result(directory: Path, receipt: Receipt, *, as_json: bool) -> None:
    """Print where the result is, and its receipt."""
    if as_json:
        show_json({"directory": str(directory)} | receipt.to_dict())
        return
    show_receipt(receipt)
    verdict = "written to" if receipt.is_accepted else "rejected, and kept in"
    Console(soft_wrap=True, highlight=False, markup=False).print(f"{verdict} {directory}")


def _describe(recipe: Recipe) -> dict[str, object]:
    return {
        "name": recipe.name,
        "summary": recipe.summary,
        "format": recipe.format,
        "producer": recipe.producer.name,
        "needs_calibration": recipe.needs_calibration,
        "options": dict(recipe.options),
    }
