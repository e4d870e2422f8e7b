"""Who is measured, by name: our handlers, the deployment guide's, our engine without a server, and the peers.

A name may carry settings of the ``handler:`` section: ``marquee:engine.process=false`` runs beside ``marquee``. ``marquee-q8`` and
``marquee-q4`` serve the GGUF files that llama.cpp made for itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil
import yaml

from archiver.deploy.launch import TorchServe
from archiver.deploy.prepare import PackagingOptions, prepare_model
from archiver.deploy.served_model import ServedModel
from tests.bench.load import Api, Completions, Predictions, Run, run_load
from tests.bench.peers.catalogue import LLAMA_CPP, PEERS
from tests.bench.peers.peer import Capacity
from tests.bench.processes import ProcessTree, running
from tests.bench.textbook import package_textbook
from tests.bench.workload import Job, Tokenizer

MARQUEE, TEXTBOOK, ENGINE = "marquee", "textbook", "engine"
# The peers whose weights they serve.
QUANTIZED = {"marquee-q8": "llamacpp-q8", "marquee-q4": "llamacpp-q4"}
NAMES = (MARQUEE, *QUANTIZED, ENGINE, TEXTBOOK, *PEERS)
_WAKE_UP = Job("wake up", 2)  # too short for any prefix cache


class Contestant(Protocol):
    """Works through jobs; takes nothing of the machine between."""

    def run(self, jobs: Sequence[Job], streams: int) -> Run: ...

    def rss_bytes(self) -> int: ...


@dataclass(frozen=True)
class Arena:
    """What all contestants are given: the checkpoint, what to hold at once, the longest answer; where peers are; room for files."""

    checkpoint: Path
    tokenizer: Tokenizer
    capacity: Capacity
    max_output_tokens: int
    cache: Path
    scratch: Path


@dataclass(frozen=True)
class Server:
    """A server that sleeps until it is asked."""

    api: Api
    processes: ProcessTree

    def run(self, jobs: Sequence[Job], streams: int) -> Run:
        """Put the load on it, after one small request that nobody measures: caches and clocks are cold."""
        self.processes.wake()
        try:
            run_load(self.api, [_WAKE_UP], streams=1)
            return run_load(self.api, jobs, streams)
        finally:
            self.processes.sleep()

    def rss_bytes(self) -> int:
        """Return the memory of its processes."""
        return self.processes.rss_bytes()


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for a name that nobody has."""
    for name in names:
        kind = name.partition(":")[0]
        if kind not in NAMES or (name != kind and kind not in (MARQUEE, *QUANTIZED)):
            raise ValueError(f"there is no contestant {name!r}: use {', '.join(NAMES)}, or {MARQUEE}:SECTION.KEY=VALUE")


def install_peers(names: Sequence[str], cache: Path) -> None:
    """Install the peers among ``names`` that are not there yet."""
    for name in names:
        peer = QUANTIZED.get(name.partition(":")[0], name)
        if peer in PEERS:
            PEERS[peer](cache).install()


@contextmanager
def start_all(names: Sequence[str], arena: Arena, say: Callable[[str], None]) -> Iterator[dict[str, Contestant]]:
    """Have contestants ready, asleep. One that does not start is left out, with a word."""
    starters = {MARQUEE: _marquee, TEXTBOOK: _textbook, ENGINE: _engine} | dict.fromkeys(QUANTIZED, _marquee) | dict.fromkeys(PEERS, _peer)
    started: dict[str, Contestant] = {}
    with ExitStack() as stack:
        for name in names:
            say(f"starting {name} with {arena.checkpoint.name}")
            try:
                started[name] = stack.enter_context(starters[name.partition(":")[0]](name, arena))
            except Exception as error:  # noqa: BLE001 - whatever keeps one from starting, the others run
                say(f"{name} is left out: {error!r}")
        yield started


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read ``section.key=value``; the values are YAML."""
    parsed: dict[str, Any] = {}
    for setting in settings:
        path, _, value = setting.partition("=")
        section, _, key = path.partition(".")
        parsed.setdefault(section, {})[key] = yaml.safe_load(value)
    return parsed


@contextmanager
def _marquee(name: str, arena: Arena) -> Iterator[Contestant]:
    kind, *settings = name.split(":")
    options = PackagingOptions(settings=parse_settings(settings))
    model = LLAMA_CPP[QUANTIZED[kind]](arena.cache).gguf(arena.checkpoint) if kind in QUANTIZED else arena.checkpoint
    with _torchserve(prepare_model(model, name="llm", options=options)) as server:
        yield _asleep(Completions(server.openai_base_url(), "llm"), server.frontend_pid)


@contextmanager
def _textbook(name: str, arena: Arena) -> Iterator[Contestant]:
    with _torchserve(package_textbook(arena.checkpoint, arena.scratch, arena.max_output_tokens)) as server:
        yield _asleep(Predictions(server.prediction_url()), server.frontend_pid)


@contextmanager
def _torchserve(model: ServedModel) -> Iterator[TorchServe]:
    with TorchServe.start([model]) as server:
        try:
            yield server
        finally:
            ProcessTree(server.frontend_pid).wake()  # or it could not be stopped in order


@contextmanager
def _peer(name: str, arena: Arena) -> Iterator[Contestant]:
    launch = PEERS[name](arena.cache).launch(arena.checkpoint, arena.capacity, os.cpu_count() or 1)
    with running(launch, arena.scratch / f"{name}.log") as processes:
        yield _asleep(launch.api, processes.pid)


def _asleep(api: Api, pid: int) -> Server:
    processes = ProcessTree(pid)
    processes.sleep()
    return Server(api, processes)


@contextmanager
def _engine(name: str, arena: Arena) -> Iterator[Contestant]:
    from tests.bench.in_process import InProcessEngine

    engine = InProcessEngine.of_checkpoint(arena.checkpoint, arena.tokenizer)
    try:
        yield _Alone(engine)
    finally:
        engine.close()


@dataclass(frozen=True)
class _Alone:
    engine: Any

    def run(self, jobs: Sequence[Job], streams: int) -> Run:
        return self.engine.run(jobs, streams)

    def rss_bytes(self) -> int:
        """Return this process's memory, load generator included."""
        return psutil.Process().memory_info().rss
