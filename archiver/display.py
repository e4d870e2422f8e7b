"""What the command line shows of work and results: progress bars on standard error, reports on standard output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from archiver.package import ArchiveInfo, VerifyReport
from archiver.quantize.receipt import Quality, Receipt
from handlers.integrity import Progress as OnProgress


@contextmanager
def byte_progress(label: str) -> Iterator[OnProgress]:
    """Yield a callback (bytes done, bytes in all) that draws a bar while it is called, and nothing if it never is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(label, visible=False)
        yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)


@contextmanager
def stage_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback (what is being done, steps done, steps in all) that draws a bar while it is called, and nothing if it never is."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", visible=False)
        yield lambda stage, done, total: bar.update(task, description=stage, completed=done, total=total, visible=True)


def show_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object, for a machine."""
    Console().out(json.dumps(value, indent=2), highlight=False)


def show_archive(info: ArchiveInfo) -> None:
    """Print what is in an archive."""
    _show_facts(_archive_facts(info))
    if info.quantization:
        _show_facts(_receipt_facts(info.quantization), title="quantization")


def show_receipt(receipt: Receipt) -> None:
    """Print what a quantization did, and what it cost in quality."""
    _show_facts(_receipt_facts(receipt))


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
    if info.planned_for:
        yield "planned for", info.planned_for
    yield "requirements", info.requirements or "none"
    yield "tested with", ", ".join(f"{package} {version}" for package, version in info.versions.items()) or "not recorded"
    yield "hashes", "of every member" if info.is_hashed else "none"


def _receipt_facts(receipt: Receipt) -> Iterator[tuple[str, str]]:
    yield "recipe", f"{receipt.recipe} ({_settings(receipt.options)})" if receipt.options else receipt.recipe
    yield "source", receipt.source
    ratio = receipt.bytes_before / max(receipt.bytes_after, 1)
    yield "size", f"{decimal(receipt.bytes_before)} before, {decimal(receipt.bytes_after)} after ({ratio:.1f}x smaller)"
    if calibration := receipt.calibration:
        yield "calibration", f"{calibration.num_samples} samples of {calibration.file}, {calibration.num_tokens:,} tokens"
        yield from (("warning", warning) for warning in calibration.warnings)
    if receipt.quality:
        yield from _quality_facts(receipt.quality)
    else:
        yield "quality", "not measured"
    yield "took", f"{receipt.seconds:.0f} s, {decimal(receipt.peak_memory_bytes)} of memory"
    yield "made with", ", ".join(f"{package} {version}" for package, version in receipt.versions.items())
    yield "budget", _settings(receipt.budget) or "none"
    yield from (("exceeded", sentence) for sentence in receipt.exceeded)


def _quality_facts(quality: Quality) -> Iterator[tuple[str, str]]:
    yield "measured on", f"{quality.num_tokens:,} tokens: {quality.evaluation}"
    change = f"{quality.perplexity_before:.3f} before, {quality.perplexity_after:.3f} after (x {quality.perplexity_ratio:.4f})"
    yield "perplexity", change
    yield "KL divergence", f"{quality.kl:.2g} nats in the mean, {quality.kl_p99:.2g} at the 99th percentile"
    yield "same first choice", f"{quality.top1_agreement:.1%} of positions"
    if quality.greedy_divergence:
        same = sorted(quality.greedy_divergence)[len(quality.greedy_divergence) // 2]
        whole = sum(length >= quality.greedy_tokens for length in quality.greedy_divergence)
        texts = len(quality.greedy_divergence)
        yield "greedy text", f"{whole} of {texts} the same for {quality.greedy_tokens} tokens; the median one for {same}"
    if quality.worst_layers:
        worst = quality.worst_layers[0]
        yield "worst layer", f"{worst.name}, {worst.relative_error:.2%} relative error"


def _show_facts(facts: Iterable[tuple[str, str]], title: str | None = None) -> None:
    table = Table(box=None, show_header=False, title=title, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    for label, value in facts:
        table.add_row(label, value)
    Console().print(table, highlight=False, markup=False)


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {value}" for key, value in values.items())
