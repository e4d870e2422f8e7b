"""Scaling: replicas over the control socket, workers over the management API, and the last ones parked before they end."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from archiver.deploy.management import LoadFailed
from archiver.deploy.models import Scaled, scale_model
from archiver.deploy.models.draining import NotDrainable
from archiver.deploy.models.parking import NotParked
from archiver.errors import ArchiverError, UsageError
from tests.archiver.deploy.management.fake_torchserve import FakeVersion


class Engines:
    """A continuous worker whose engines get ready one description after they were wanted, except beyond ``limit``."""

    def __init__(self, count: int, limit: int = 64) -> None:
        self.count, self.limit, self.is_settled = count, limit, True

    def commands(self) -> dict[str, Any]:
        return {"describe": self.describe, "scale": self.scale}

    def scale(self, replicas: int) -> None:
        self.count, self.is_settled = replicas, False

    def describe(self) -> dict[str, Any]:
        states = ["ready" if self.is_settled and index < self.limit else "loading" for index in range(self.count)]
        self.is_settled = True
        return {"replicas": [{"pid": 7 + index, "state": state, "sequences": 0} for index, state in enumerate(states)]}


@pytest.fixture
def engines(fake, listen):
    engines = Engines(1)
    listen("bot", "1.0", 100, engines.commands())
    fake.add("bot", "1.0", FakeVersion("bot.mar", is_continuous=True))
    return engines


def test_a_continuous_model_gets_replicas(server, engines):
    model = server.management.describe("bot")
    assert scale_model(server, model, 3) == Scaled("bot", "1.0", "replicas", 1, 3)
    assert engines.count == 3


def test_replicas_that_do_not_get_ready_are_told_of_in_time(server, engines):
    engines.limit = 1
    with pytest.raises(ArchiverError, match="bot 1.0 has 1 ready, 1 loading after 0.3 s, and goes on trying to have 2 ready"):
        scale_model(server, server.management.describe("bot"), 2, timeout_s=0.3)


def test_what_the_worker_says_is_passed_on(server, engines, fake, listen):
    fake.add("mini", "1.0", FakeVersion("mini.mar", is_continuous=True))
    with pytest.raises(ArchiverError, match="no worker answers"):
        scale_model(server, server.management.describe("mini"), 2)


def test_a_continuous_model_of_another_machine_scales_there(remote, fake):
    fake.add("bot", "1.0", FakeVersion("bot.mar", is_continuous=True))
    with pytest.raises(UsageError, match="the machine .* it runs on only: run `marquee models scale bot 2` there"):
        scale_model(remote, remote.management.describe("bot"), 2)


def test_a_synchronous_model_gets_workers(remote, fake):
    fake.add("embedder", "1.0")
    assert scale_model(remote, remote.management.describe("embedder"), 3) == Scaled("embedder", "1.0", "workers", 1, 3)
    assert remote.management.describe("embedder").max_workers == 3


def test_new_workers_that_do_not_load_are_ended_again(remote, fake):
    fake.add("embedder", "1.0", FakeVersion("embedder.mar", workers=1, loadable=2))
    with pytest.raises(LoadFailed):
        scale_model(remote, remote.management.describe("embedder"), 4)
    model = remote.management.describe("embedder")
    assert (model.max_workers, model.num_ready) == (2, 2), "one that did load may be working by now"


def test_new_workers_that_are_not_waited_for_are_ended_again(remote, fake):
    fake.add("embedder", "1.0", FakeVersion("embedder.mar", workers=1, loadable=1))
    answer = fake.answer

    def interrupt(request: httpx.Request) -> httpx.Response:
        response = answer(request)
        if request.url.params.get("min_worker") == "4":
            raise KeyboardInterrupt
        return response

    fake.answer = interrupt
    with pytest.raises(KeyboardInterrupt):
        scale_model(remote, remote.management.describe("embedder"), 4)
    assert remote.management.describe("embedder").max_workers == 1


def test_surplus_workers_are_parked_before_they_end(server, pool):
    workers = pool("embedder", "1.0", 4)
    assert scale_model(server, server.management.describe("embedder"), 2) == Scaled("embedder", "1.0", "workers", 4, 2)
    assert workers.parked_at_resize == [[False, False, True, True]]


def test_a_worker_that_does_not_finish_keeps_all(server, pool):
    workers = pool("embedder", "1.0", 3)
    workers.busy = {2}
    with pytest.raises(NotParked, match="1 of 2 workers still work on requests after 0.3 s, so none was ended"):
        scale_model(server, server.management.describe("embedder"), 1, drain_timeout_s=0.3)
    assert workers.parked_at_resize == []
    assert workers.are_released()
    assert server.management.describe("embedder").max_workers == 3


def test_force_ends_workers_as_they_are(server, remote, pool):
    workers = pool("embedder", "1.0", 2)
    with pytest.raises(NotDrainable, match="--force"):
        scale_model(remote, remote.management.describe("embedder"), 1)
    scale_model(remote, remote.management.describe("embedder"), 1, force=True)
    assert workers.parked_at_resize == [[False, False]]


@pytest.mark.parametrize("count", [0, -1])
def test_nothing_is_not_a_size(server, fake, count):
    fake.add("embedder", "1.0")
    with pytest.raises(UsageError, match="unregister embedder"):
        scale_model(server, server.management.describe("embedder"), count)
