"""Rolling: in which order things happen, and what is undone when one of them fails."""

from __future__ import annotations

import re

import pytest

from archiver.deploy.models import Rolled, roll_model
from archiver.deploy.models.draining import NotDrainable
from archiver.deploy.models.probe import ProbeFailed
from archiver.errors import ArchiverError
from tests.archiver.deploy.management.fake_torchserve import FakeVersion


class FakeProbe:
    """Notes what was the default when it was sent; fails with ``error`` if there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.sent_while: list[tuple[str, str]] = []

    def send(self, server, model):
        self.sent_while.append((model.version, server.management.describe(model.name).version))
        if self.error:
            raise self.error


@pytest.fixture
def embedder(fake, pool):
    fake.store["new.mar"] = ("2.0", FakeVersion(""))
    return pool("embedder", "1.0", 3)


def test_the_new_version_is_asked_before_it_is_the_default_and_the_old_one_goes_last(server, fake, embedder):
    probe = FakeProbe()
    assert roll_model(server, "embedder", "new.mar", probe=probe) == Rolled("embedder", "1.0", "2.0", is_old_kept=False)
    assert probe.sent_while == [("2.0", "1.0")]
    assert fake.defaults == {"embedder": "2.0"}
    assert list(fake.models["embedder"]) == ["2.0"]
    assert fake.models["embedder"]["2.0"].workers == 3, "as many as before"
    assert embedder.parked_at_resize == [[True] * 3]


@pytest.mark.parametrize("error", [ProbeFailed("503: out of order"), KeyboardInterrupt()])
def test_until_the_switch_a_failure_changes_nothing(server, fake, embedder, error):
    with pytest.raises(type(error)):
        roll_model(server, "embedder", "new.mar", probe=FakeProbe(error))
    assert fake.defaults == {"embedder": "1.0"}
    assert list(fake.models["embedder"]) == ["1.0"]
    assert embedder.parked_at_resize == []


def test_an_old_version_in_use_is_left_and_the_way_to_remove_it_is_told(server, fake, embedder):
    embedder.busy = {0}
    words = "embedder 2.0 serves; 1.0 is left (embedder 1.0: 1 of 3 workers still work on requests after 0.3 s): clients that name it"
    with pytest.raises(ArchiverError, match=f"{re.escape(words)}.*`marquee models unregister embedder --version 1.0`"):
        roll_model(server, "embedder", "new.mar", probe=None, drain_timeout_s=0.3)
    assert fake.defaults == {"embedder": "2.0"}
    assert list(fake.models["embedder"]) == ["1.0", "2.0"]


def test_the_old_version_is_kept_on_request(server, fake, embedder):
    assert roll_model(server, "embedder", "new.mar", probe=None, keep_old=True).is_old_kept
    assert list(fake.models["embedder"]) == ["1.0", "2.0"]


def test_what_cannot_be_drained_is_refused_before_anything_is_done(remote, fake, embedder):
    with pytest.raises(NotDrainable):
        roll_model(remote, "embedder", "new.mar", probe=None)
    assert list(fake.models["embedder"]) == ["1.0"]
    assert roll_model(remote, "embedder", "new.mar", probe=None, keep_old=True).new_version == "2.0"
