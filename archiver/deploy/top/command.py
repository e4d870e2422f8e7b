"""``marquee top``: frame after frame, to a person at a terminal, to a pipe, or to a machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict

from rich.console import Console
from rich.live import Live

from archiver.deploy.addresses import METRICS_TO_MANAGEMENT, neighbour
from archiver.deploy.management import ManagementClient
from archiver.deploy.running_server import RunningServer
from archiver.deploy.scrape import scrape
from archiver.deploy.top.inventory import Inventory
from archiver.deploy.top.keyboard import single_keys
from archiver.deploy.top.metrics import Metrics
from archiver.deploy.top.screen import draw
from archiver.deploy.top.snapshot import Snapshot
from archiver.deploy.top.watch import Watch
from archiver.errors import ArchiverError, UsageError

_LONGEST_INTERVAL_S = 86_400.0
"""A day: what is not looked at for longer is not watched, and clocks end somewhere."""

Show = Callable[[Snapshot], None]


def top(url: str, interval_s: float, *, once: bool = False, as_json: bool = False) -> None:
    """Show a server every ``interval_s`` seconds until ``q`` or Ctrl-C; with ``once`` one frame, after one interval.

    Raises UsageError for an address or an interval that is none, and ArchiverError if there is nothing for the one frame.
    """
    if not 0 < interval_s <= _LONGEST_INTERVAL_S:
        raise UsageError(f"--interval {interval_s:g}: give a number of seconds above 0, at most {_LONGEST_INTERVAL_S:g}")
    metrics = Metrics(url, scrape)
    console = Console(highlight=False)
    with closing(Inventory(lambda: _management(metrics.url))) as inventory, suppress(KeyboardInterrupt):
        watch = Watch(metrics, inventory.statuses)
        if once:
            _printer(console, as_json=as_json)(_look_once(watch, interval_s))
        elif console.is_terminal and not as_json:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                _repeat(watch, interval_s, lambda snapshot: live.update(draw(snapshot, console.width), refresh=True))
        else:
            _repeat(watch, interval_s, _printer(console, as_json=as_json))


def _management(metrics_url: str) -> ManagementClient:
    return RunningServer.at(neighbour(metrics_url, METRICS_TO_MANAGEMENT)).management


def _look_once(watch: Watch, interval_s: float) -> Snapshot:
    watch.look()  # rates need two readings
    time.sleep(interval_s)
    snapshot = watch.look()
    if snapshot.problem:
        raise ArchiverError(snapshot.problem)
    return snapshot


def _repeat(watch: Watch, interval_s: float, show: Show) -> None:
    with single_keys() as wait:
        while True:
            show(watch.look())
            if wait(interval_s) == "q":
                return


def _printer(console: Console, *, as_json: bool) -> Show:
    if as_json:
        return lambda snapshot: console.out(json.dumps(asdict(snapshot)), highlight=False)
    return lambda snapshot: console.print(draw(snapshot, console.width))
