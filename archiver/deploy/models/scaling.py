"""Give a model more or fewer of what it scales by: engine replicas if it is continuous, TorchServe workers if it is synchronous."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from archiver.deploy.management import ModelStatus
from archiver.deploy.models.draining import controls_of
from archiver.deploy.models.load_watch import LoadWatch
from archiver.deploy.models.parking import NotParked, parked
from archiver.deploy.models.progress import SILENT, Progress
from archiver.deploy.running_server import RunningServer
from archiver.deploy.worker_control import Replica, WorkerControl
from archiver.errors import ArchiverError, UsageError

_POLL_S = 0.2


@dataclass(frozen=True)
class Scaled:
    """What was done."""

    name: str
    version: str
    unit: Literal["replicas", "workers"]
    before: int
    after: int


def scale_model(
    server: RunningServer,
    model: ModelStatus,
    count: int,
    *,
    timeout_s: float = 600.0,
    drain_timeout_s: float = 60.0,
    force: bool = False,
    progress: Progress = SILENT,
) -> Scaled:
    """Have ``count`` replicas or workers, and return when all of them are ready and the others gone; requests go on meanwhile.

    Replicas get ``timeout_s`` to become ready and go on trying after it; new workers have the archive's ``startupTimeout``. Workers that
    are too many get ``drain_timeout_s`` to finish what they are working on, or none with ``force``.

    Raises UsageError, LoadFailed (workers that did not load are ended), NotParked and NotDrainable (none is ended), other ArchiverErrors.
    """
    if count < 1:
        raise UsageError(f"{count} is no number of workers or replicas to serve with: give 1 or more, or unregister {model.name}")
    if model.is_continuous:
        return _scale_replicas(server, model, count, timeout_s, progress)
    before = len(model.workers)
    if count >= before:
        server.management.scale_workers(model.name, model.version, count, on_status=LoadWatch(server, progress))
    elif force:
        server.management.scale_workers(model.name, model.version, count)
    else:
        _end_surplus(server, model, count, drain_timeout_s, progress)
    return Scaled(model.name, model.version, "workers", before, count)


def _end_surplus(server: RunningServer, model: ModelStatus, count: int, timeout_s: float, progress: Progress) -> None:
    surplus = controls_of(server, model, model.workers[count:])  # TorchServe ends the last ones of its list
    try:
        with parked(server.management, model, surplus, timeout_s, progress):
            server.management.scale_workers(model.name, model.version, count)
    except NotParked as error:
        raise NotParked(f"{error} after {timeout_s:g} s, so none was ended: give them longer (--drain-timeout), or --force") from None


def _scale_replicas(server: RunningServer, model: ModelStatus, count: int, timeout_s: float, progress: Progress) -> Scaled:
    control = _engine_control(server, model, count)
    before = len(control.replicas())
    control.scale(count)
    deadline_s = time.monotonic() + timeout_s
    while not _is_reached(replicas := control.replicas(), count):
        states = ", ".join(f"{number} {state}" for state, number in Counter(replica.state for replica in replicas).items())
        if time.monotonic() > deadline_s:
            raise ArchiverError(
                f"{model.name} {model.version} has {states} after {timeout_s:g} s, and goes on trying to have {count} ready"
            )
        progress.doing(f"{model.name} {model.version}: {states}")
        time.sleep(_POLL_S)
    return Scaled(model.name, model.version, "replicas", before, count)


def _engine_control(server: RunningServer, model: ModelStatus, count: int) -> WorkerControl:
    if server.local is None:
        raise UsageError(
            f"{model.name} is continuous: it scales by engine replicas, from the machine (or in the container) it runs on only: "
            f"run `marquee models scale {model.name} {count}` there"
        )
    if not model.workers:
        raise ArchiverError(f"{model.name} {model.version} has no worker to tell: `marquee models scale` needs one that runs")
    return server.local.control(model, model.workers[0])


def _is_reached(replicas: Sequence[Replica], count: int) -> bool:
    return len(replicas) == count and all(replica.state == "ready" for replica in replicas)
