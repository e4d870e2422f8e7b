"""``marquee autoscale``: from options to a loop that runs until a signal ends it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import partial

from rich.console import Console

from archiver.deploy.addresses import INFERENCE_TO_MANAGEMENT, INFERENCE_TO_METRICS, neighbour
from archiver.deploy.autoscale.journal import Journal
from archiver.deploy.autoscale.loop import autoscale, interval_until_stopped
from archiver.deploy.autoscale.policy import Policy
from archiver.deploy.autoscale.replicas import ModelReplicas
from archiver.deploy.autoscale.signals import SignalName, Target
from archiver.deploy.autoscale.watch import Watch
from archiver.deploy.running_server import RunningServer
from archiver.deploy.scrape import scrape
from archiver.errors import UsageError

_SHORTEST_INTERVAL_S = 2.0
"""The metrics change once a second."""
_LONGEST_S = 86_400.0
"""A day, for an interval or a cool-down: whoever wants more does not want to autoscale, and clocks end somewhere."""


@dataclass(frozen=True)
class AutoscaleRequest:
    """What the user asked for. ``metrics_url`` is found out if it is None; with ``is_dry_run`` nothing is scaled.

    ``version``: this one, and the end when it is unregistered; None: the default version, whichever that is at the moment.
    """

    model: str
    policy: Policy
    target: Target
    version: str | None = None
    metrics_url: str | None = None
    interval_s: float = 5.0
    is_dry_run: bool = False
    as_json: bool = False


def run(server: RunningServer, request: AutoscaleRequest) -> None:
    """Scale one model of a server until SIGINT or SIGTERM, and write a line for each decision to standard output.

    Raises UsageError for numbers that cannot be, ArchiverError if the model or the metrics are not there at the start, or once the version
    that was asked for is unregistered.
    """
    _check(request)
    replicas = ModelReplicas(server, request.model, request.version)
    watch = Watch(replicas, request.target, partial(scrape, request.metrics_url or find_metrics_url(server)))
    write = partial(Console(soft_wrap=True).out, highlight=False)
    journal = Journal(request.policy, request.target, write, is_dry_run=request.is_dry_run, as_json=request.as_json)
    with interval_until_stopped(request.interval_s) as wait:
        autoscale(request.policy, watch.look, _leave if request.is_dry_run else replicas.scale, journal, wait)


def choose_target(*, queue_ms: float | None, running: float | None, kv_usage: float | None) -> Target:
    """Return the only target that is given. Raises UsageError for none, several, or one that is not a number above 0 (and below 1)."""
    given: list[tuple[str, SignalName, float | None]] = [
        ("--target-queue-ms", "queue", queue_ms),
        ("--target-running", "running", running),
        ("--target-kv-usage", "kv usage", kv_usage),
    ]
    targets = [(option, signal, value) for option, signal, value in given if value is not None]
    if len(targets) != 1:
        raise UsageError(f"give exactly one target: {', '.join(option for option, _, _ in given[:-1])} or {given[-1][0]}")
    option, signal, value = targets[0]
    most = 1.0 if signal == "kv usage" else math.inf
    if not 0 < value < most:
        raise UsageError(f"{option} must be above 0{' and below 1' if most == 1 else ''}, got {value:g}")
    return Target(signal, value)


def _check(request: AutoscaleRequest) -> None:
    policy = request.policy
    if policy.minimum < 1:
        raise UsageError(f"--min must be 1 or more, got {policy.minimum}")
    if policy.maximum < policy.minimum:
        raise UsageError(f"--max must be --min ({policy.minimum}) or more, got {policy.maximum}")
    durations = [
        ("--interval", request.interval_s, _SHORTEST_INTERVAL_S),
        ("--up-cooldown", policy.up_cooldown_s, 0.0),
        ("--down-cooldown", policy.down_cooldown_s, 0.0),
    ]
    for option, seconds, least in durations:
        if not least <= seconds <= _LONGEST_S:  # true for NaN, too
            raise UsageError(f"{option} must be from {least:g} to {_LONGEST_S:g} seconds, got {seconds:g}")


def find_metrics_url(server: RunningServer) -> str:
    """Return where a server's metrics are: as it is configured if it runs here, else on the port after that of the management API."""
    configured = server.local.properties().get("metrics_address") if server.local else None
    if configured:
        return re.sub(r"//(0\.0\.0\.0|\[::\]):", "//127.0.0.1:", configured).rstrip("/") + "/metrics"
    return neighbour(server.management.url, INFERENCE_TO_METRICS - INFERENCE_TO_MANAGEMENT) + "/metrics"


def _leave(_replicas: int) -> None:
    """Scale nothing: a dry run."""
