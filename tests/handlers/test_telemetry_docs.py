"""The documented metrics are those that there are, and the documented queries ask for them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from handlers.telemetry import METRICS
from handlers.telemetry.table import BEGIN, END, renewed
from handlers.time_ledger import PARTS
from tests.promql import check_query

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_tables_are_up_to_date() -> None:
    assert DOCUMENT.read_text() == renewed(DOCUMENT.read_text()), "run python -m handlers.telemetry.table docs/metrics.md"


def test_every_metric_has_a_line() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\w*) \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    units = {"count": "", "s": "s", "ms": "ms", "B": "bytes"}
    ours = [(metric.name, metric.kind, units[metric.unit], ", ".join(f"`{label}`" for label in metric.labels)) for metric in METRICS]
    assert [row for row in rows if row[0].startswith("marquee_")] == ours


def test_the_parts_of_a_request_are_explained_in_their_order() -> None:
    section = DOCUMENT.read_text().partition("## Where the time of a request goes")[2].partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == PARTS


def test_the_queries_ask_for_what_there_is() -> None:
    section = DOCUMENT.read_text().partition("## Questions and queries")[2].partition("\n## ")[0]
    queries = [query for line in section.splitlines() if line.startswith("| ") for query in re.findall(r"`([^`]+)`", line)]
    assert len(queries) > 8
    for query in queries:
        check_query(query)


def test_a_document_without_marks_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tables to renew"):
        renewed(f"{BEGIN} only")
    assert END in renewed(f"{BEGIN}\n{END}")
