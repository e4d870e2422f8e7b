"""Wait until nobody uses a version any more, and keep it so while it is taken away."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from archiver.deploy.management import ModelStatus, WorkerStatus
from archiver.deploy.models.parking import NotParked, parked
from archiver.deploy.models.progress import Progress
from archiver.deploy.running_server import RunningServer
from archiver.deploy.worker_control import WorkerControl
from archiver.errors import ArchiverError

_POLL_S = 0.1
# No request for so long means idle: between the frontend's queue and the engine one is counted nowhere for a moment.
_QUIET_S = 2.0
_WAY_OUT = "add --force and lose what is in progress, or --keep-old when rolling"


class StillBusy(ArchiverError):
    """Requests kept coming, or went on, until the time was over; nothing was taken away."""


class NotDrainable(ArchiverError):
    """Nothing tells when the model is idle."""


def controls_of(server: RunningServer, model: ModelStatus, workers: Sequence[WorkerStatus]) -> list[WorkerControl]:
    """Return the ways to give orders to those of ``workers`` that serve; raises NotDrainable if they cannot be given any from here."""
    if server.local is None:
        raise NotDrainable(
            f"{model.name} {model.version} is drained from the machine (or container) that it runs on only: run this there; or {_WAY_OUT}"
        )
    controls = [server.local.control(model, worker) for worker in workers if worker.is_ready]
    if not all(control.exists for control in controls):
        raise NotDrainable(f"{model.name} {model.version} cannot be drained, since its handler is not one of Marquee's: {_WAY_OUT}")
    return controls


@contextmanager
def drained(server: RunningServer, model: ModelStatus, timeout_s: float, progress: Progress) -> Iterator[None]:
    """Within the block the version has no request; whatever comes during it is lost if the block removes the version.

    Raises StillBusy if that is not reached in time, NotDrainable.
    """
    controls = controls_of(server, model, model.workers)
    if model.is_continuous:
        _wait_until_quiet(server, model, controls, timeout_s, progress)
        yield
        return
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            with parked(server.management, model, controls, max(deadline_s - time.monotonic(), 0.0), progress):
                if not (num_waiting := _num_waiting(server, model)):
                    yield
                    return
        except NotParked as error:
            raise StillBusy(f"{error} after {timeout_s:g} s") from None
        if time.monotonic() > deadline_s:
            raise StillBusy(f"{model.name} {model.version} still has {num_waiting} requests waiting after {timeout_s:g} s")


def _wait_until_quiet(
    server: RunningServer, model: ModelStatus, controls: Sequence[WorkerControl], timeout_s: float, progress: Progress
) -> None:
    now_s = quiet_since_s = time.monotonic()
    deadline_s = now_s + timeout_s
    while now_s - quiet_since_s < _QUIET_S:
        time.sleep(_POLL_S)
        num_live = _num_waiting(server, model) + sum(control.num_live() for control in controls)
        now_s = time.monotonic()
        if num_live:
            quiet_since_s = now_s
            progress.doing(f"{model.name} {model.version}: {num_live} requests are being finished")
        if num_live and now_s > deadline_s:
            raise StillBusy(f"{model.name} {model.version} still has {num_live} requests after {timeout_s:g} s")


def _num_waiting(server: RunningServer, model: ModelStatus) -> int:
    return server.management.describe(model.name, model.version).pending_requests
