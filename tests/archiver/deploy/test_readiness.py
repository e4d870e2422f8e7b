"""Waiting for models, with a fake server: order, progress, and what ends the wait."""

from __future__ import annotations

import pytest

from archiver.deploy.management import LoadFailed, ModelStatus, Unreachable
from archiver.deploy.management.status import read_status
from archiver.deploy.readiness import ServerDied, wait_until_ready


def status(wanted: int, *workers: str) -> ModelStatus:
    started = "2020-01-02T03:04:05.678Z"
    described = [{"id": "9000", "pid": 1, "status": worker, "startTime": started, "memoryUsage": 0} for worker in workers]
    names = {"modelName": "m", "modelVersion": "1.0", "modelUrl": "m.mar"}
    sizes = {"minWorkers": wanted, "maxWorkers": wanted, "batchSize": 1, "maxBatchDelay": 1}
    return read_status({**names, **sizes, "workers": described}, is_default=True)


STARTING = status(1, "UNLOADING")
READY = status(1, "READY")


class FakeServer:
    """Tells each model's statuses one after the other, and the last for ever; None is no answer."""

    def __init__(self, *, failures: dict[str, str] | None = None, lives: int = 1000, **statuses: list[ModelStatus | None]) -> None:
        self.statuses = statuses
        self.failures = failures or {}
        self.lives = lives

    def describe(self, name: str) -> ModelStatus:
        statuses = self.statuses[name]
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        if status is None:
            raise Unreachable("not yet")
        return status

    def update(self) -> None:
        pass

    def activity(self, model: str) -> str:
        return "loading weights" if model == "b" else ""

    def failure(self, model: str) -> str | None:
        return self.failures.get(model)

    def is_running(self) -> bool:
        self.lives -= 1
        return self.lives >= 0


def wait(server: FakeServer) -> list[str]:
    told: list[str] = []
    wait_until_ready(server.statuses, server, server, server.is_running, told.append)
    return told


def test_waits_for_every_model_and_tells_for_which():
    server = FakeServer(a=[None, STARTING, READY], b=[STARTING, STARTING, STARTING, READY])
    assert wait(server) == ["starting TorchServe with a", "a: starting its worker", "b: loading weights"]


def test_a_model_without_workers_is_ready():
    assert wait(FakeServer(a=[status(0)])) == []


def test_needs_as_many_ready_workers_as_wanted():
    assert not status(2, "READY", "UNLOADING").is_ready


def test_first_failed_load_ends_the_wait():
    with pytest.raises(LoadFailed, match="b failed to load: no such layer"):
        wait(FakeServer(a=[STARTING], b=[STARTING], failures={"b": "no such layer"}))


def test_a_server_that_ends_ends_the_wait():
    with pytest.raises(ServerDied):
        wait(FakeServer(a=[None], lives=3))


def test_the_cause_is_preferred_to_the_servers_end():
    with pytest.raises(LoadFailed):
        wait(FakeServer(a=[None], lives=0, failures={"a": "no such layer"}))
