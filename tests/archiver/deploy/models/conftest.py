"""A running server whose management API is a fake and whose workers take orders over real control sockets."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from archiver.deploy.local_server import LocalServer
from archiver.deploy.management import ManagementClient
from archiver.deploy.running_server import RunningServer
from handlers.control_socket import Commands, ControlSocket
from handlers.gate import Gate
from handlers.worker_directory import control_socket, worker_directory
from tests.archiver.deploy.management.fake_torchserve import FakeTorchServe, FakeVersion

Listen = Callable[[str, str, int, Commands], ControlSocket]
Pool = Callable[..., "WorkerPool"]


@pytest.fixture
def fake() -> FakeTorchServe:
    return FakeTorchServe()


@pytest.fixture
def local(tmp_path: Path) -> LocalServer:
    for name in ("store", "logs", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "logs" / "torchserve.log").touch()
    return LocalServer(
        pid=4711,
        directory=tmp_path,
        model_store=tmp_path / "store",
        config_file=tmp_path / "config.properties",
        logs=tmp_path / "logs",
        temp=tmp_path / "tmp",
    )


@pytest.fixture
def server(fake: FakeTorchServe, local: LocalServer) -> RunningServer:
    """The server as this machine's user sees it."""
    return RunningServer(_client(fake), "http://127.0.0.1:8080", local=local)


@pytest.fixture
def remote(fake: FakeTorchServe) -> RunningServer:
    """The same from another machine."""
    return RunningServer(_client(fake), "http://127.0.0.1:8080")


@pytest.fixture
def listen(local: LocalServer) -> Iterator[Listen]:
    """Return a function that opens the control socket of a worker: ``listen(model, version, pid, commands)``."""
    sockets: list[ControlSocket] = []

    def open_socket(model: str, version: str, pid: int, commands: Commands) -> ControlSocket:
        directory = worker_directory(local.pid, model, version, local.temp)
        directory.mkdir(parents=True, exist_ok=True)
        sockets.append(ControlSocket(control_socket(directory, pid), commands))
        return sockets[-1]

    yield open_socket
    with ThreadPoolExecutor() as closing:  # each takes up to half a second
        list(closing.map(ControlSocket.close, sockets))


@pytest.fixture
def pool(fake: FakeTorchServe, listen: Listen) -> Pool:
    """Return a function that registers a synchronous model with workers: ``pool(name, version, count)``."""

    def make(name: str, version: str, count: int) -> WorkerPool:
        version_of_pool = fake.add(name, version, FakeVersion(f"{name}.mar", workers=count))
        return WorkerPool(version_of_pool, lambda pid, commands: listen(name, version, pid, commands))

    return make


class WorkerPool:
    """Workers with real gates. A description goes to the next one in turn, and those of busy workers wait, as TorchServe's queue does."""

    def __init__(self, version: FakeVersion, listen: Callable[[int, Commands], ControlSocket]) -> None:
        self.version = version
        self.gates = [Gate() for _ in range(version.workers)]
        self.busy: set[int] = set()
        self.parked_at_resize: list[list[bool]] = []
        self._ended: set[int] = set()
        self._turns = itertools.cycle(range(version.workers))
        for index, gate in enumerate(self.gates):
            listen(version.first_pid + index, gate.commands())
        version.on_ask, version.on_resize = self._ask, self._resize

    def are_parked(self) -> list[bool]:
        return [gate.describe()["parked"] for gate in self.gates]

    def are_released(self) -> bool:
        """Whether all workers work again; one that was let go takes a moment to wake up."""
        deadline_s = time.monotonic() + 10.0
        while any(self.are_parked()) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return not any(self.are_parked())

    def _ask(self) -> dict[str, Any]:
        index = next(self._turns)
        if index in self.busy | self._ended or self.gates[index].describe()["parked"]:
            raise httpx.ReadTimeout("in the queue")
        self.gates[index].wait_while_parked()
        if index in self._ended:
            raise httpx.ReadError("Worker died.")
        return {}

    def _resize(self, count: int) -> None:
        self.parked_at_resize.append(self.are_parked())
        for index in range(count, len(self.gates)):
            self._ended.add(index)
            self.gates[index].unpark()


def _client(fake: FakeTorchServe) -> ManagementClient:
    return ManagementClient("http://127.0.0.1:8081", transport=fake.transport)
