"""What ``marquee doctor`` prints for a person."""

from __future__ import annotations

from collections.abc import Iterator

from rich.box import SIMPLE
from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from archiver.deploy.doctor import ExtraFinding, Findings, FormatFinding


def print_findings(findings: Findings, console: Console | None = None) -> None:
    """Print the machine, the packages and the formats; what is missing stands in red, with what it costs."""
    console = console or Console(highlight=False)
    machine = Table(box=None, show_header=False)
    for label, value in _machine(findings):
        machine.add_row(f"[bold]{label}", value)
    console.print(machine)
    console.print(_extras(findings.extras))
    console.print(_formats(findings.formats, findings.device))


def _machine(findings: Findings) -> Iterator[tuple[str, str]]:
    yield "Python", findings.python
    yield "Java", str(findings.java) if findings.java else f"[red]{findings.java_problem}"
    yield "processor", f"{findings.cpu}, {findings.num_cores} cores ({', '.join(findings.cpu_features) or 'no AVX512-BF16'})"
    yield "C compiler", findings.compiler or "[red]none"
    torchs = "torch's, and quantized weights are dequantized at load: ours need AVX512-BF16 and a C compiler"
    yield "kernels", "ours" if findings.has_kernels else torchs
    yield "GPUs", ", ".join(f"{gpu}, {decimal(gpu.memory_bytes)}" for gpu in findings.gpus) or "none that torch can use"
    if findings.memory_bytes and findings.free_memory_bytes:
        yield "memory", f"{decimal(findings.free_memory_bytes)} free of {decimal(findings.memory_bytes)}"
    yield "disk", f"{decimal(findings.free_disk_bytes)} free here"


def _extras(extras: tuple[ExtraFinding, ...]) -> Table:
    table = Table("extra", "packages", "without it", box=SIMPLE, title="Packages", title_justify="left")
    for extra in extras:
        packages = ", ".join(f"{name} {version}" if version else f"[red]{name} missing[/]" for name, version in extra.packages.items())
        advice = "" if extra.is_complete else rf"{extra.loss}: pip install 'marquee\[{extra.name}]'"
        table.add_row(extra.name, packages, advice)
    return table


def _formats(formats: tuple[FormatFinding, ...], device: str) -> Table:
    where = "on the CPU" if device == "cpu" else "on the GPUs"
    table = Table("format", "here", "tested", box=SIMPLE, title=f"Formats of weights, {where}", title_justify="left")
    for row in formats:
        here = f"[red]needs {row.lacks}[/]" if row.lacks else f"runs: {row.way}"
        table.add_row(row.name, here, "yes" if row.has_run else "" if row.lacks else "no")
    return table
