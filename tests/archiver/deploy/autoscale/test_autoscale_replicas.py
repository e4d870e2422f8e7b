"""Engines and workers, counted and ordered: TorchServe's management API in memory, and a real control socket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.deploy.autoscale import memory_bound
from archiver.deploy.autoscale.replicas import ModelReplicas
from archiver.deploy.autoscale.signals import Served
from archiver.deploy.autoscale.watch import VersionGone
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
    """A continuous worker with engines in these states, or with one inside it."""

    def __init__(self, *states: str) -> None:
        self.states = list(states)
        self.is_engine_inside = False
        self.orders: list[int] = []

    def describe(self) -> dict[str, Any]:
        replicas = [{"pid": 1, "state": state, "sequences": 0} for state in self.states]
        engines = len(replicas) or int(self.is_engine_inside)
        return {"replicas": replicas, "memory": {"engines": engines, "measured": MEASURED, "predicted": None}}

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
    replicas = ModelReplicas(server(torchserve, local), "chat")
    seen = replicas.look()
    assert (seen.served, seen.is_settled) == (Served("chat", "1.0", 1), True)
    assert (seen.affordable or 0) > 1000


@pytest.mark.parametrize(
    ("states", "num_replicas"), [(["ready", "loading"], 2), (["draining", "ready", "loading"], 2), (["draining", "ready"], 1)]
)
def test_engines_that_come_and_go(torchserve: FakeTorchServe, local: LocalServer, worker: FakeWorker, states: list[str], num_replicas: int):
    worker.states = states
    seen = ModelReplicas(server(torchserve, local), "chat").look()
    assert (seen.served.replicas, seen.is_settled) == (num_replicas, False)


def test_engines_are_ordered_there_too(torchserve: FakeTorchServe, local: LocalServer, worker: FakeWorker):
    ModelReplicas(server(torchserve, local), "chat").scale(3)
    assert worker.orders == [3]


def test_a_worker_that_restarts_has_no_engines_for_a_while(torchserve: FakeTorchServe, local: LocalServer):
    replicas = ModelReplicas(server(torchserve, local), "chat")
    torchserve.models["chat"]["1.0"].workers = 0
    seen = replicas.look()
    assert (seen.served.replicas, seen.is_settled) == (0, False)
    replicas.scale(2)


def test_an_engine_that_restarts_is_none_for_a_while(torchserve: FakeTorchServe, local: LocalServer, worker: FakeWorker):
    worker.states = []
    seen = ModelReplicas(server(torchserve, local), "chat").look()
    assert (seen.served.replicas, seen.is_settled, seen.affordable) == (0, False, None)


def test_an_engine_inside_its_worker_cannot_be_scaled(torchserve: FakeTorchServe, local: LocalServer, worker: FakeWorker):
    worker.states, worker.is_engine_inside = [], True
    with pytest.raises(UsageError, match="set handler.engine.process: true"):
        ModelReplicas(server(torchserve, local), "chat").look()


def test_engines_of_another_machine_are_out_of_reach(torchserve: FakeTorchServe):
    with pytest.raises(UsageError, match="run this there"):
        ModelReplicas(server(torchserve), "chat").look()


def test_workers_are_counted_and_ordered_through_the_management_api(torchserve: FakeTorchServe):
    replicas = ModelReplicas(server(torchserve), "classifier")
    seen = replicas.look()
    assert seen.served == Served("classifier", "1.0", 2, batch_size=8, waiting=3, is_default=True)
    assert (seen.is_settled, seen.affordable) == (True, None)
    replicas.scale(3)
    assert torchserve.models["classifier"]["1.0"].workers == 3


def test_a_new_default_version_is_followed(torchserve: FakeTorchServe):
    replicas = ModelReplicas(server(torchserve), "classifier")
    assert replicas.look().served.version == "1.0"
    roll(torchserve)
    assert replicas.look().served == Served("classifier", "2.0", 1, batch_size=8, is_default=True)
    replicas.scale(3)
    assert torchserve.models["classifier"]["2.0"].workers == 3


def test_a_version_that_was_asked_for_is_kept_to(torchserve: FakeTorchServe):
    replicas = ModelReplicas(server(torchserve), "classifier", "1.0")
    assert replicas.look().served.version == "1.0"
    roll(torchserve)
    with pytest.raises(VersionGone, match=r"classifier 1\.0 is not registered \(any more\): without --version"):
        replicas.look()


def test_a_model_that_is_not_there(torchserve: FakeTorchServe):
    with pytest.raises(ModelNotFound) as error:
        ModelReplicas(server(torchserve), "unheard-of").look()
    assert not isinstance(error.value, VersionGone), "it may come back"


def roll(torchserve: FakeTorchServe) -> None:
    torchserve.add("classifier", "2.0", FakeVersion("classifier.mar", first_pid=300))
    torchserve.defaults["classifier"] = "2.0"
    del torchserve.models["classifier"]["1.0"]
