"""What the command line shows of work and results: progress bars on standard error, reports on standard output."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from archiver.package import ArchiveInfo, VerifyReport
from handlers.integrity import Progress as OnProgress


@contextmanager
def byte_progress(label: str) -> Iterator[OnProgress]:
    """Yield a callback (bytes done, bytes in all) that draws a bar while it is called, and nothing if it never is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


def show_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object, for a machine."""
    Console().out(json.dumps(value, indent=2), highlight=False)


def show_archive(info: ArchiveInfo) -> None:
    """Print what is in an archive."""
    table = Table(box=None, show_header=False)
    table.add_column(style="bold")
    for label, value in _archive_facts(info):
        table.add_row(label, value)
    Console().print(table, highlight=False, markup=False)


def show_verification(report: VerifyReport) -> None:
    """Print the problems of an archive, or that there are none."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for problem in report.problems:
        console.print(problem, style="red")
    checked = "every member matches its hash" if report.is_hashed else "no hashes inside, so only form and checksums were checked"
    verdict = f"{len(report.problems)} problem(s)" if report.problems else f"ok: {checked}"
    console.print(f"{report.path}: {verdict} ({report.num_members} members, {decimal(report.total_bytes)})")


def _archive_facts(info: ArchiveInfo) -> Iterator[tuple[str, str]]:
    yield "name", f"{info.name} {info.version or ''}"
    yield "handler", info.handler
    if info.architecture:
        yield "architecture", info.architecture
    if info.num_parameters:
        shares = ", ".join(f"{dtype} {count:,}" for dtype, count in info.dtypes.items())
        yield "parameters", f"{info.num_parameters:,} ({shares})"
    yield "size", f"{decimal(info.total_bytes)} in {len(info.members)} members, weights {decimal(info.weight_bytes)} ({info.format})"
    yield "frontend", _settings(info.frontend_keys)
    yield "settings", _settings(info.handler_section) or "the defaults"
    yield "requirements", info.requirements or "none"
    yield "tested with", ", ".join(f"{package} {version}" for package, version in info.versions.items()) or "not recorded"
    yield "hashes", "of every member" if info.is_hashed else "none"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items())
