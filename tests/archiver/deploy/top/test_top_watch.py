"""Where to look, and what happens when nobody is there."""

from __future__ import annotations

import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from archiver.deploy.addresses import neighbour
from archiver.deploy.management import ModelStatus, ModelSummary
from archiver.deploy.scrape import MetricsUnavailable, Samples
from archiver.deploy.top.command import top
from archiver.deploy.top.inventory import Inventory
from archiver.deploy.top.keyboard import single_keys
from archiver.deploy.top.metrics import Metrics
from archiver.deploy.top.watch import Watch
from archiver.errors import ArchiverError, UsageError

BY_NAME = {"ts_inference_requests_total": (({"model_name": "bot", "model_version": "1.0"}, 3.0),)}


class Server:
    """Has metrics at some addresses, and remembers where it was asked."""

    def __init__(self, *urls: str) -> None:
        self.urls = urls
        self.asked: list[str] = []

    def scrape(self, url: str) -> Samples:
        self.asked.append(url)
        if url not in self.urls:
            raise MetricsUnavailable(f"no metrics at {url}")
        return Samples(BY_NAME)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://h:8082/metrics", "http://h:8082/metrics"),
        ("http://h:8082", "http://h:8082/metrics"),
        ("http://h:8080", "http://h:8082/metrics"),
        ("http://h:8080/", "http://h:8082/metrics"),
        ("http://[::1]:8080", "http://[::1]:8082/metrics"),
        ("https://h/some/where", "https://h/some/where"),
    ],
)
def test_finds_the_metrics_and_remembers_where(url, found):
    server = Server(found)
    metrics = Metrics(url, server.scrape)
    metrics.read()
    assert metrics.url == found
    metrics.read()
    assert server.asked[-2:] == [found, found]


def test_goes_on_looking_and_complains_about_the_first_address():
    server = Server()
    metrics = Metrics("http://h:8080", server.scrape)
    for _ in range(2):
        with pytest.raises(MetricsUnavailable, match="http://h:8080/metrics"):
            metrics.read()
    server.urls = ("http://h:8082/metrics",)
    assert metrics.read().by_name is BY_NAME


@pytest.mark.parametrize("url", ["h:8080", "8080", "ftp://h", "http://", "http://h:port", ""])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(UsageError, match="is no address of a server"):
        Metrics(url, Server().scrape)


def test_the_other_apis_are_beside():
    assert neighbour("http://h:8082/metrics", -1) == "http://h:8081"
    assert neighbour("http://h", 1) == "http://h:81"


def test_a_server_that_comes_and_goes_is_one_snapshot_after_the_other():
    server = Server()
    watch = Watch(Metrics("http://h:1/metrics", server.scrape), lambda: ())
    assert watch.look().problem == "no metrics at http://h:1/metrics"
    server.urls = ("http://h:1/metrics",)
    assert [row.name for row in watch.look().models] == ["bot"]
    assert watch.look().problem is None
    server.urls = ()
    assert watch.look().models == ()


class Management:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.is_away = False
        self.num_closed = 0

    def list(self) -> list[ModelSummary]:
        if self.is_away:
            raise ArchiverError("away")
        return [ModelSummary("bot", "bot.mar")]

    def versions(self, name: str) -> list[ModelStatus]:
        return [ModelStatus(name, version, version == "1.0", True, name, 1, 1, 1, 1) for version in ("1.0", "2.0")]

    def close(self) -> None:
        self.num_closed += 1


def test_who_does_not_answer_is_left_alone_for_a_while():
    now_s = 0.0
    management = Management()
    connections = []

    def connect() -> Management:
        connections.append(now_s)
        return management

    inventory = Inventory(connect, clock=lambda: now_s)
    assert [status.version for status in inventory.statuses()] == ["1.0", "2.0"]
    management.is_away = True
    assert inventory.statuses() == ()
    management.is_away = False
    now_s = 29.0
    assert inventory.statuses() == ()
    assert connections == [0.0]
    now_s = 30.0
    assert len(inventory.statuses()) == 2
    assert connections == [0.0, 30.0]  # it may have come back with other keys
    inventory.close()
    assert management.num_closed == 2


@contextmanager
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Make standard input a terminal, and yield its keyboard."""
    keyboard, screen = pty.openpty()
    try:
        with os.fdopen(screen) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            yield keyboard
    finally:
        os.close(keyboard)


def test_a_key_needs_no_enter(monkeypatch):
    with terminal(monkeypatch) as keyboard, single_keys() as wait:
        assert wait(0.01) == ""
        os.write(keyboard, b"qx")
        assert (wait(10), wait(10)) == ("q", "x")


def test_without_a_terminal_there_are_no_keys(monkeypatch):
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with single_keys() as wait:
            assert wait(0.01) == ""


@pytest.mark.parametrize("interval_s", [0.0, -1.0, float("nan")])
def test_an_interval_is_above_zero(interval_s):
    with pytest.raises(UsageError, match="--interval"):
        top("http://127.0.0.1:1", interval_s)


def test_one_frame_of_nothing_is_an_error():
    with pytest.raises(ArchiverError, match="no metrics at http://127.0.0.1:1/metrics"):
        top("http://127.0.0.1:1", 0.01, once=True)
