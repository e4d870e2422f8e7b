"""Take workers of a synchronous model out of service without losing a request.

TorchServe 0.12 ends a worker at once, and answers the batch that it is working on with 500. Nothing tells it to leave a worker alone
first, but a worker can make itself busy: told to ``park``, it blocks in the next description that it is asked for, and a worker that is
blocked there holds no client's request and is handed none. Descriptions go to whichever worker is free next, so they are asked for, over
and over, until all that are wanted have taken one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from archiver.deploy.management import ManagementClient, ManagementError, ModelStatus
from archiver.deploy.models.progress import Progress
from archiver.deploy.worker_control import WorkerControl
from archiver.errors import ArchiverError

_POLL_S = 0.05
# How long parking outlasts the wait for it: what is done to parked workers takes a moment.
_GRACE_S = 30.0


class NotParked(ArchiverError):
    """Workers went on working until the time was over; they were left as they were."""


@contextmanager
def parked(
    management: ManagementClient, model: ModelStatus, controls: Sequence[WorkerControl], timeout_s: float, progress: Progress
) -> Iterator[None]:
    """Within the block the workers behind ``controls`` hold no request and get none; those that outlive it work again afterwards.

    Raises NotParked if one of them is not free within ``timeout_s``, ManagementError if one of them does not take orders.
    """
    is_over = threading.Event()
    park_s = timeout_s + _GRACE_S
    try:
        for control in controls:
            control.park(park_s)
            # As many as workers: each ends up in a parked one, so that when all are parked no description is left in the queue.
            # Nobody waits for their end: a worker that is removed with its version leaves what it has without an answer.
            threading.Thread(target=_lure, args=(management, model, park_s, is_over), name="lure", daemon=True).start()
        _wait_until_parked(model, controls, timeout_s, progress)
        is_over.set()  # before the end of the workers: nobody is to ask those who are gone
        yield
    finally:
        is_over.set()
        for control in controls:
            with contextlib.suppress(ManagementError):  # it was ended in the block
                control.unpark()


def _lure(management: ManagementClient, model: ModelStatus, timeout_s: float, is_over: threading.Event) -> None:
    while not is_over.wait(_POLL_S):
        with contextlib.suppress(ManagementError):  # no room in the queue now; or the worker was ended, as it should be
            management.ask_a_worker(model.name, model.version, timeout_s=timeout_s)


def _wait_until_parked(model: ModelStatus, controls: Sequence[WorkerControl], timeout_s: float, progress: Progress) -> None:
    deadline_s = time.monotonic() + timeout_s
    while (num_busy := sum(not control.is_parked() for control in controls)) > 0:
        if time.monotonic() > deadline_s:
            raise NotParked(f"{model.name} {model.version}: {num_busy} of {len(controls)} workers still work on requests")
        progress.doing(f"{model.name} {model.version}: waiting for {num_busy} of {len(controls)} workers to finish")
        time.sleep(_POLL_S)
