"""Draining: a version is idle when its queue is empty and nobody works, and is given up in time."""

from __future__ import annotations

import pytest

from archiver.deploy.management import ModelApiOff, Refused
from archiver.deploy.models import StillBusy, unregister_model
from archiver.deploy.models.draining import NotDrainable, drained
from archiver.deploy.models.progress import SILENT
from tests.archiver.deploy.management.fake_torchserve import FakeVersion


class Engine:
    """A continuous worker that is asked for its load: the numbers one after the other, and the last for ever."""

    def __init__(self, *loads: int) -> None:
        self.loads = list(loads)

    def stats(self) -> dict[str, int]:
        load = self.loads.pop(0) if len(self.loads) > 1 else self.loads[0]
        return {"running": load, "waiting": 0}


def continuous(fake, listen, engine):
    fake.add("bot", "1.0", FakeVersion("bot.mar", is_continuous=True))
    listen("bot", "1.0", 100, {"stats": engine.stats})


def test_a_continuous_model_goes_when_it_was_quiet_for_a_while(server, fake, listen, monkeypatch):
    monkeypatch.setattr("archiver.deploy.models.draining._QUIET_S", 0.3)
    engine = Engine(3, 1, 0, 1, 0)
    continuous(fake, listen, engine)
    unregister_model(server, server.management.describe("bot"))
    assert engine.loads == [0], "a moment without requests is not the end"
    assert "bot" not in fake.models


def test_a_continuous_model_in_use_stays(server, fake, listen):
    continuous(fake, listen, Engine(2))
    with pytest.raises(StillBusy, match="bot 1.0 still has 2 requests after 0.2 s"):
        unregister_model(server, server.management.describe("bot"), drain_timeout_s=0.2)
    assert "bot" in fake.models


def test_a_synchronous_model_goes_with_all_workers_parked(server, fake, pool):
    workers = pool("embedder", "1.0", 2)
    unregister_model(server, server.management.describe("embedder"))
    assert workers.parked_at_resize == [[True, True]]
    assert "embedder" not in fake.models


def test_requests_in_the_queue_are_waited_for(server, pool):
    workers = pool("embedder", "1.0", 1)
    workers.version.pending = 3
    with pytest.raises(StillBusy, match="embedder 1.0"):
        unregister_model(server, server.management.describe("embedder"), drain_timeout_s=0.5)
    assert workers.are_released()


def test_what_may_not_be_removed_is_not_drained(server, fake, pool):
    workers = pool("embedder", "1.0", 1)
    workers.version.pending = 3
    fake.has_model_api = False
    with pytest.raises(ModelApiOff, match="--model-api"):
        unregister_model(server, server.management.describe("embedder"))
    fake.has_model_api = True
    fake.add("embedder", "2.0")
    with pytest.raises(Refused, match="embedder 1.0 is the default and cannot go.*`marquee models default embedder VERSION`"):
        unregister_model(server, server.management.describe("embedder"))
    assert not any("customized" in request for request in fake.requests), "no worker was to be parked"


def test_workers_go_on_if_the_block_fails(server, pool):
    workers = pool("embedder", "1.0", 2)
    with pytest.raises(ZeroDivisionError), drained(server, server.management.describe("embedder"), 5.0, SILENT):
        raise ZeroDivisionError
    assert workers.are_released()


def test_workers_that_never_loaded_stand_in_nobodys_way(server, fake):
    fake.add("broken", "1.0", FakeVersion("broken.mar", workers=2, loadable=0))
    unregister_model(server, server.management.describe("broken"))
    assert "broken" not in fake.models


def test_what_takes_no_orders_cannot_be_drained(server, remote, fake):
    fake.add("foreign", "1.0")
    model = server.management.describe("foreign")
    with pytest.raises(NotDrainable, match="its handler is not one of Marquee's: add --force.*--keep-old"):
        unregister_model(server, model)
    with pytest.raises(NotDrainable, match="from the machine .* it runs on only: run this there; or add --force"):
        unregister_model(remote, model)
    unregister_model(remote, model, force=True)
    assert "foreign" not in fake.models
