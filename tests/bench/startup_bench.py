"""Measure how long ``marquee serve`` takes until a model answers: cold, with nothing packaged so far, and warm; and where the time goes.

    python -m tests.bench.startup_bench --repeats 5 --out /tmp/startup

Cold and warm starts take turns. The operating system's file cache is warm in both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
from rich.console import Console
from rich.table import Table

from tests.bench.checkpoint import choose_checkpoint
from tests.bench.figures import Spread
from tests.bench.report import Machine, write_json

# What a worker's log says when each phase of loading is over.
_WORKER_PHASES = {
    "worker: imports torch, ts and the handler": "MARQUEE LOADING: verifying the archive",
    "worker: hashes, imports transformers, tokenizer": "MARQUEE LOADING: loading weights",
    "worker: weights": "MODEL_LOG - loaded ",
    "worker: engine, and its check against the model": "MODEL_LOG - engine ready",
}


@dataclass(frozen=True)
class Start:
    """One start: seconds until ready, and by phase."""

    kind: str
    total_s: float
    phases_s: dict[str, float]


def main(
    model: Annotated[Path | None, typer.Option(help="checkpoint; without it tinychat")] = None,
    repeats: int = 5,
    out: Annotated[Path | None, typer.Option(help="directory for startup.json")] = None,
) -> None:
    """Run the benchmark, print a table, write JSON."""
    machine = Machine.here()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = choose_checkpoint(model, Path(scratch))
        starts = [start for number in range(repeats) for start in _start_twice(checkpoint, Path(scratch) / f"cache-{number}")]
    Console().print(_table(starts))
    if out:
        write_json(out / "startup.json", machine, {"model": checkpoint.name, "starts": starts})


def _start_twice(checkpoint: Path, cache: Path) -> list[Start]:
    return [_start(kind, checkpoint, cache) for kind in ("cold", "warm")]


def _start(kind: str, checkpoint: Path, cache: Path) -> Start:
    with _serving(checkpoint, cache) as (started_s, server):
        ready_s = time.time()
        moments = _moments(server, started_s, ready_s)
    phases = {name: moments[name] - before for name, before in zip(moments, [started_s, *moments.values()], strict=False)}
    return Start(kind, ready_s - started_s, phases)


@contextmanager
def _serving(checkpoint: Path, cache: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    """Run the command; yield when it was started and what it says when it is ready."""
    command = [sys.executable, "-m", "archiver", "serve", str(checkpoint), "--port", "0", "--json"]
    started_s = time.time()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"MARQUEE_CACHE": str(cache)})
    assert process.stdout is not None
    try:
        yield started_s, json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


def _moments(server: dict[str, Any], started_s: float, ready_s: float) -> dict[str, float]:
    """Return when each phase was over, in seconds since the epoch."""
    logs = Path(server["logs"])
    frontend = psutil.Process(server["frontend_pid"])
    worker = next(process for process in frontend.children() if "model_service_worker" in " ".join(process.cmdline()))
    # Process times are exact to each other only; the configuration is written in the moment before the JVM is started.
    frontend_started_s = (logs.parent / "config.properties").stat().st_mtime
    log = (logs / "torchserve.log").read_text().splitlines()
    return {
        "command: checks, packaging": frontend_started_s,
        "frontend: JVM": frontend_started_s + worker.create_time() - frontend.create_time(),
        **{phase: _logged_at(mark, log) for phase, mark in _WORKER_PHASES.items()},
        "until noticed": ready_s,
    }


def _logged_at(mark: str, log: Sequence[str]) -> float:
    line = next(line for line in log if mark in line)
    return datetime.strptime(line.split(" ", 1)[0], "%Y-%m-%dT%H:%M:%S,%f").timestamp()


def _table(starts: Sequence[Start]) -> Table:
    table = Table("seconds: median (lowest–highest)", "cold", "warm")
    kinds = [[start for start in starts if start.kind == kind] for kind in ("cold", "warm")]
    for phase in starts[0].phases_s:
        table.add_row(phase, *(Spread.of([start.phases_s[phase] for start in kind]).show(2) for kind in kinds))
    table.add_section()
    table.add_row("until ready", *(Spread.of([start.total_s for start in kind]).show(2) for kind in kinds))
    return table


if __name__ == "__main__":
    typer.run(main)
