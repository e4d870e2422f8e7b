"""The metrics as tables in Markdown. ``python -m handlers.telemetry.table docs/metrics.md`` renews those in a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from handlers.telemetry.catalogue import GROUPS
from handlers.telemetry.metric import Metric

BEGIN, END = "<!-- metrics: python -m handlers.telemetry.table docs/metrics.md -->", "<!-- end of metrics -->"

_UNITS = {"count": "", "s": "s", "ms": "ms", "B": "bytes"}


def metric_tables() -> str:
    """Return one table a group, a line a metric."""
    return "\n".join(f"### {group}\n\n{_table(metrics)}" for group, metrics in GROUPS.items())


def renewed(text: str) -> str:
    """Return a document with the tables between its two marks brought up to date; raises ValueError if it lacks them."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"no tables to renew: put the lines {BEGIN!r} and {END!r} where they go")
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{metric_tables()}{END}", text, flags=re.DOTALL)


def _table(metrics: Iterable[Metric]) -> str:
    head = ("name", "type", "unit", "labels", "what it says")
    rows = [(f"`{metric.name}`", metric.kind, _UNITS[metric.unit], _labels(metric), metric.meaning) for metric in metrics]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)


if __name__ == "__main__":
    document = Path(sys.argv[1])
    document.write_text(renewed(document.read_text()))
