"""Scale, roll and kill under load, on a real server: how long each takes, what clients notice, and that none loses an answer.

    python -m tests.bench.scaling_bench --seconds 10 --repeats 3 --out /tmp/scaling

A continuous model is scaled by engine replicas and a synchronous one by workers; half of the clients stream. An answer is lost unless it
comes whole and with the very text that the same request got before the load. The kill comes last, and may cost answers: those that the
killed process was working on.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from archiver.deploy.launch import TorchServe
from archiver.deploy.models import list_versions, roll_model, scale_model
from archiver.deploy.running_server import RunningServer
from archiver.deploy.served_model import ServedModel
from archiver.deploy.settings import ServerSettings
from archiver.package import ArchiveSpec, build_archive
from tests.bench.report import Machine, write_json
from tests.contract.conftest import BATCHED_HANDLER
from tests.contract.load import bodies, generate, under_load

TINYCHAT = Path(__file__).resolve().parents[2] / "examples" / "tinychat" / "model"
_KINDS: dict[str, dict[str, Any]] = {"continuous": {}, "synchronous": {"handler": BATCHED_HANDLER}}
_CLIENT_TOKENS = (8, 32, 32, 64, 64, 128)
_MOST = 3


@dataclass(frozen=True)
class Phase:
    """One thing that was done while the clients asked. ``seconds``: how long it took; times of answers in milliseconds."""

    kind: str
    what: str
    seconds: float
    answers: int
    lost: int
    median_ms: float
    longest_ms: float


@dataclass
class Clients:
    """What the clients of one model have seen: for each answer, when it came and how long it took."""

    url: str
    tokens: tuple[int, ...] = _CLIENT_TOKENS
    answers: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._requests = bodies(self.tokens)
        self._expected = [generate(self.url, body) for body in self._requests]

    def ask(self, client: int) -> None:
        """Send a client's request and check what comes."""
        begun_s = time.perf_counter()
        text = generate(self.url, self._requests[client])
        ended_s = time.perf_counter()
        assert text == self._expected[client], "another text than before"
        self.answers.append((ended_s, ended_s - begun_s))


def main(
    seconds: Annotated[float, typer.Option(help="of load between two changes")] = 10.0,
    repeats: Annotated[int, typer.Option(help="servers, one after the other")] = 1,
    out: Annotated[Path | None, typer.Option(help="directory for the figures as JSON")] = None,
) -> None:
    """Measure and print a table."""
    machine, phases = Machine.here(), list[Phase]()
    with tempfile.TemporaryDirectory() as scratch:
        archives = {(kind, version): _build(kind, version, Path(scratch)) for kind in _KINDS for version in ("1.0", "2.0")}
        for _ in range(repeats):
            phases += _measure_server(archives, seconds)
    Console().print(_table(phases))
    if out:
        write_json(out / "scaling.json", machine, {"phases": phases})


def _build(kind: str, version: str, scratch: Path) -> Path:
    return build_archive(ArchiveSpec(TINYCHAT, kind, version=version, out=scratch / version, format="dir", **_KINDS[kind]))


def _measure_server(archives: dict[tuple[str, str], Path], seconds: float) -> list[Phase]:
    served = [ServedModel.from_archive(archives[kind, "1.0"]) for kind in _KINDS]
    with (
        TorchServe.start(served, settings=ServerSettings(model_api=True)) as torchserve,
        RunningServer.at(torchserve.management_url) as server,
    ):
        return [phase for kind in _KINDS for phase in _measure(server, kind, str(archives[kind, "2.0"]), seconds)]


def _measure(server: RunningServer, kind: str, new_archive: str, seconds: float) -> list[Phase]:
    clients = Clients(f"{server.inference_url}/predictions/{kind}")
    phases = []
    with under_load(clients.ask, len(clients.tokens)) as load:

        def run(what: str, act: Callable[[], object]) -> None:
            num_lost, begun_s = len(load.failures), time.perf_counter()
            act()
            ended_s = time.perf_counter()
            times = [taken_s * 1000 for came_s, taken_s in clients.answers if begun_s <= came_s <= ended_s] or [0.0]
            lost = len(load.failures) - num_lost
            phases.append(Phase(kind, what, ended_s - begun_s, len(times), lost, statistics.median(times), max(times)))

        run("1", lambda: time.sleep(seconds))
        run(f"1 → {_MOST}", lambda: scale_model(server, server.management.describe(kind), _MOST))
        run(f"{_MOST}", lambda: time.sleep(seconds))
        run(f"{_MOST} → 1", lambda: scale_model(server, server.management.describe(kind), 1))
        run("roll 1.0 → 2.0", lambda: roll_model(server, kind, new_archive))
        run("2.0", lambda: time.sleep(seconds))
        run("kill", lambda: _kill(server, kind, clients))
    return phases


def _kill(server: RunningServer, kind: str, clients: Clients) -> None:
    """Kill what computes, an engine or a worker, and wait until clients get answers again."""
    (listed,) = list_versions(server, kind)
    os.kill(listed.replicas[0].pid if listed.replicas else listed.status.workers[0].pid, signal.SIGKILL)
    killed_s = time.perf_counter()
    while not any(came_s - taken_s > killed_s for came_s, taken_s in clients.answers[-len(clients.tokens) :]):
        time.sleep(0.05)


def _table(phases: list[Phase]) -> Table:
    table = Table("model", "", "took s", "answers", "lost", "median ms", "longest ms")
    for kind, what in dict.fromkeys((phase.kind, phase.what) for phase in phases):
        same = [phase for phase in phases if (phase.kind, phase.what) == (kind, what)]
        counts = sum(phase.answers for phase in same), sum(phase.lost for phase in same)
        figures = _range([phase.median_ms for phase in same], 0), _range([phase.longest_ms for phase in same], 0)
        table.add_row(kind, what, _range([phase.seconds for phase in same], 1), *map(str, counts), *figures)
    return table


def _range(values: list[float], digits: int) -> str:
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low}–{high}"


if __name__ == "__main__":
    typer.run(main)
