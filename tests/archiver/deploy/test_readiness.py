"""Waiting for models, with a fake server: order, progress, and what ends the wait."""

from __future__ import annotations

import pytest

from archiver.deploy.management import ModelStatus, WorkerStatus
from archiver.deploy.readiness import LoadFailed, ServerDied, wait_until_ready

STARTING = ModelStatus(1, (WorkerStatus(1, False),))
READY = ModelStatus(1, (WorkerStatus(1, True),))


class FakeServer:
    """Tells each model's statuses one after the other, and the last for ever."""

    def __init__(self, *, failures: dict[str, str] | None = None, lives: int = 1000, **statuses: list[ModelStatus | None]) -> None:
        self.statuses = statuses
        self.failures = failures or {}
        self.lives = lives

    def describe(self, model: str) -> ModelStatus | None:
        statuses = self.statuses[model]
        return statuses.pop(0) if len(statuses) > 1 else statuses[0]

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
    assert wait(FakeServer(a=[ModelStatus(0, ())])) == []


def test_needs_as_many_ready_workers_as_wanted():
    assert not ModelStatus(2, (WorkerStatus(1, True), WorkerStatus(2, False))).is_ready


def test_first_failed_load_ends_the_wait():
    with pytest.raises(LoadFailed, match="b failed to load: no such layer"):
        wait(FakeServer(a=[STARTING], b=[STARTING], failures={"b": "no such layer"}))


def test_a_server_that_ends_ends_the_wait():
    with pytest.raises(ServerDied):
        wait(FakeServer(a=[None], lives=3))


def test_the_cause_is_preferred_to_the_servers_end():
    with pytest.raises(LoadFailed):
        wait(FakeServer(a=[None], lives=0, failures={"a": "no such layer"}))
