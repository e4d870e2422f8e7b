"""Engines and workers, counted and ordered: TorchServe's management API in memory, and a real control socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.deploy.autoscale import memory_bound
from archiver.deploy.autoscale.replicas import EngineReplicas, WorkerReplicas, find_replicas
from archiver.deploy.autoscale.signals import Served
from archiver.deploy.local_server import LocalServer
from archiver.deploy.management import ManagementClient, ModelNotFound
from archiver.deploy.running_server import RunningServer
from archiver.errors import UsageError
from handlers.control_socket import ControlSocket
from handlers.worker_directory import control_socket, worker_directory
from tests.archiver.deploy.management.fake_torchserve import FakeTorchServe, FakeVersion

URL = "http://127.0.0.1:8081"
MEASURED = {"weights": 1000, "kv_cache": 1000, "activations": 10, "context": 10, "graphs": 0}


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bound, "_num_gpus", lambda: 0)


class FakeWorker:
    """A continuous worker with engines in these states."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.orders: list[int] = []

    def describe(self) -> dict[str, Any]:
        replicas = [{"pid": 1, "state": state, "sequences": 0} for state in self.states]
        return {"replicas": replicas, "memory": {"engines": len(replicas), "measured": MEASURED, "predicted": None}}

    def scale(self, replicas: int) -> None:
        self.orders.append(replicas)


@pytest.fixture
def torchserve() -> FakeTorchServe:
    fake = FakeTorchServe()
    fake.add("chat", "1.0", FakeVersion("chat.mar", is_continuous=True, first_pid=100))
    fake.add("classifier", "1.0", FakeVersion("classifier.mar", workers=2, pending=3, first_pid=200))
    return fake


@pytest.fixture
def local(tmp_path: Path) -> LocalServer:
    return LocalServer(1, tmp_path, tmp_path, None, tmp_path, tmp_path)


@pytest.fixture
def worker(local: LocalServer) -> Iterator[FakeWorker]:
    """The worker of "chat", which takes orders at its socket."""
    fake = FakeWorker("ready")
    directory = worker_directory(local.pid, "chat", "1.0", local.temp)
    directory.mkdir(parents=True)
    control = ControlSocket(control_socket(directory, 100), {"describe": fake.describe, "scale": fake.scale})
    yield fake
    control.close()


def server(torchserve: FakeTorchServe, local: LocalServer | None = None) -> RunningServer:
    return RunningServer(ManagementClient(URL, transport=torchserve.transport), "http://127.0.0.1:8080", local=local)


def test_engines_are_counted_at_the_workers_socket(torchserve: FakeTorchServe, local: LocalServer, worker: FakeWorker):
    replicas = find_replicas(server(torchserve, local), "chat")
    assert isinstance(replicas, EngineReplicas)
    seen = replicas.look()
    assert (seen.served, seen.is_settled) == (Served("chat", "1.0", 1), True)
    assert (seen.affordable or 0) > 1000


@pytest.mark.parametrize(
    ("states", "num_replicas"), [(["ready", "loading"], 2), (["draining", "ready", "loading"], 2), (["draining", "ready"], 1)]
)
def test_engines_that_come_and_go(torchserve: FakeTorchServe, local: LocalServer, worker: FakeWorker, states: list[str], num_replicas: int):
    worker.states = states
    seen = find_replicas(server(torchserve, local), "chat").look()
    assert (seen.served.replicas, seen.is_settled) == (num_replicas, False)


def test_engines_are_ordered_there_too(torchserve: FakeTorchServe, local: LocalServer, worker: FakeWorker):
    find_replicas(server(torchserve, local), "chat").scale(3)
    assert worker.orders == [3]


def test_a_worker_that_restarts_has_no_engines_for_a_while(torchserve: FakeTorchServe, local: LocalServer):
    replicas = find_replicas(server(torchserve, local), "chat")
    torchserve.models["chat"]["1.0"].workers = 0
    seen = replicas.look()
    assert (seen.served.replicas, seen.is_settled) == (0, False)
    replicas.scale(2)


def test_an_engine_inside_its_worker_cannot_be_scaled(torchserve: FakeTorchServe, local: LocalServer, worker: FakeWorker):
    worker.states = []
    with pytest.raises(UsageError, match="set handler.engine.process: true"):
        find_replicas(server(torchserve, local), "chat").look()


def test_engines_of_another_machine_are_out_of_reach(torchserve: FakeTorchServe):
    with pytest.raises(UsageError, match="run this there"):
        find_replicas(server(torchserve), "chat")


def test_workers_are_counted_and_ordered_through_the_management_api(torchserve: FakeTorchServe):
    replicas = find_replicas(server(torchserve), "classifier")
    assert isinstance(replicas, WorkerReplicas)
    seen = replicas.look()
    assert (seen.served, seen.is_settled, seen.affordable) == (Served("classifier", "1.0", 2, batch_size=8, waiting=3), True, None)
    replicas.scale(3)
    assert torchserve.models["classifier"]["1.0"].workers == 3


def test_a_model_that_is_not_there(torchserve: FakeTorchServe):
    with pytest.raises(ModelNotFound):
        find_replicas(server(torchserve), "unheard-of")
    with pytest.raises(ModelNotFound):
        find_replicas(server(torchserve), "classifier", "2.0")
