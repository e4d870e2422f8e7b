"""What is known of a server's models, as a table and as JSON."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from archiver.deploy.models import list_models
from archiver.deploy.models.display import show_models, show_versions
from archiver.deploy.models.listing import only_version
from archiver.errors import UsageError
from tests.archiver.deploy.management.fake_torchserve import FakeVersion


@pytest.fixture
def models(server, fake, listen):
    fake.add("bot", "1.0", FakeVersion("bot.mar", is_continuous=True))
    fake.add("bot", "2.0", FakeVersion("bot2.mar", is_continuous=True, first_pid=200))
    fake.add("embedder", "1.0", FakeVersion("embedder", workers=3, pending=7))
    replicas = [{"pid": 7, "state": "ready", "sequences": 5}, {"pid": 8, "state": "loading", "sequences": 0}]
    listen("bot", "1.0", 100, {"describe": lambda: {"replicas": replicas}})
    return list_models(server)


def printed(show, models):
    console = Console(file=io.StringIO(), width=120)
    show(models, console)
    return console.file.getvalue()


def test_a_line_tells_a_version(models):
    lines = [line.split() for line in printed(show_models, models).splitlines() if "." in line]
    assert lines == [
        ["bot", "1.0", "yes", "continuous", "1/2", "replicas", "0"],
        ["bot", "2.0", "continuous", "1/1", "worker", "0"],  # one that takes no orders
        ["embedder", "1.0", "yes", "synchronous", "3/3", "workers", "7"],
    ]


def test_all_is_told_of_one_model(models):
    text = printed(show_versions, models[:1])
    assert "bot 1.0 (default)" in text
    assert "pid 100, ready, started 2020-01-02 03:04:05" in text
    assert "pid 8, loading, 0 sequences" in text


def test_json_has_the_same(models):
    bot = json.loads(json.dumps(models[0].to_dict()))
    assert (bot["name"], bot["is_ready"], bot["replicas"][0]["sequences"]) == ("bot", True, 5)
    assert bot["workers"][0]["started"] == "2020-01-02T03:04:05.678000+00:00"
    assert models[1].to_dict()["replicas"] is None


def test_a_server_without_models_says_so():
    assert printed(show_models, []) == "no models\n"


def test_one_of_several_versions_must_be_named(server, models):
    assert only_version(server, "embedder").version == "1.0"
    assert only_version(server, "bot", "2.0").version == "2.0"
    with pytest.raises(UsageError, match="bot has the versions 1.0, 2.0: say which with --version"):
        only_version(server, "bot")
