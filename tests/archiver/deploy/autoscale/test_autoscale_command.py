"""``marquee autoscale``'s options, and what keeps it from starting."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from archiver.deploy.autoscale.command import AutoscaleRequest, choose_target, find_metrics_url, run
from archiver.deploy.autoscale.policy import Policy
from archiver.deploy.autoscale.signals import Target
from archiver.deploy.local_server import LocalServer
from archiver.deploy.management import Unreachable
from archiver.deploy.running_server import RunningServer
from archiver.errors import UsageError

QUEUE = Target("queue", 200)


@pytest.fixture
def nobody() -> RunningServer:
    return RunningServer.at("http://127.0.0.1:1")


def target(queue_ms: float | None = None, running: float | None = None, kv_usage: float | None = None) -> Target:
    return choose_target(queue_ms=queue_ms, running=running, kv_usage=kv_usage)


def test_one_target():
    assert [target(queue_ms=200), target(running=8), target(kv_usage=0.8)] == [QUEUE, Target("running", 8), Target("kv usage", 0.8)]


@pytest.mark.parametrize("options", [{}, {"queue_ms": 1.0, "running": 1.0}, {"queue_ms": 1.0, "running": 1.0, "kv_usage": 0.5}])
def test_exactly_one(options: dict[str, float]):
    with pytest.raises(UsageError, match="give exactly one target: --target-queue-ms, --target-running or --target-kv-usage"):
        target(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queue_ms": 0.0}, "--target-queue-ms must be above 0, got 0"),
        ({"running": math.nan}, "--target-running must be above 0, got nan"),
        ({"kv_usage": 80.0}, "--target-kv-usage must be above 0 and below 1, got 80"),
    ],
)
def test_a_target_that_cannot_be(options: dict[str, float], message: str):
    with pytest.raises(UsageError, match=message):
        target(**options)


@pytest.mark.parametrize(
    ("policy", "interval_s", "message"),
    [
        (Policy(0, 2), 5.0, "--min must be 1 or more, got 0"),
        (Policy(3, 2), 5.0, r"--max must be --min \(3\) or more, got 2"),
        (Policy(1, 2), 1.0, "--interval must be from 2 to 86400 seconds, got 1"),
        (Policy(1, 2), math.nan, "--interval must be from 2 to 86400 seconds, got nan"),
        (Policy(1, 2), 1e300, "--interval must be from 2 to 86400 seconds, got 1e\\+300"),
        (Policy(1, 2, up_cooldown_s=-1.0), 5.0, "--up-cooldown must be from 0 to 86400 seconds, got -1"),
        (Policy(1, 2, down_cooldown_s=math.inf), 5.0, "--down-cooldown must be from 0 to 86400 seconds, got inf"),
    ],
)
def test_numbers_that_cannot_be(nobody: RunningServer, policy: Policy, interval_s: float, message: str):
    with pytest.raises(UsageError, match=message):
        run(nobody, AutoscaleRequest("chat", policy, QUEUE, interval_s=interval_s))


def test_without_a_server_it_does_not_start(nobody: RunningServer):
    with pytest.raises(Unreachable, match="no TorchServe answers"):
        run(nobody, AutoscaleRequest("chat", Policy(1, 2), QUEUE))


@pytest.mark.parametrize(
    ("properties", "url"),
    [
        ("metrics_address=http://127.0.0.1:9000\n", "http://127.0.0.1:9000/metrics"),
        ("metrics_address=http://0.0.0.0:9000\n", "http://127.0.0.1:9000/metrics"),
        ("", "http://127.0.0.1:2/metrics"),
    ],
)
def test_metrics_are_where_the_server_has_them(nobody: RunningServer, tmp_path: Path, properties: str, url: str):
    config = tmp_path / "config.properties"
    config.write_text(properties)
    local = LocalServer(1, tmp_path, tmp_path, config, tmp_path, tmp_path)
    assert find_metrics_url(replace(nobody, local=local)) == url
