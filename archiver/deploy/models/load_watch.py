"""While a server loads a model: tell what the worker does, and why it fails if it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from archiver.deploy.management import LoadFailed
from archiver.deploy.models.progress import Progress
from archiver.deploy.running_server import RunningServer
from archiver.deploy.worker_log import ServerLog

_POLL_S = 0.1
# The worker's output reaches the log a moment after the server has answered.
_PATIENCE_S = 4.0


@contextmanager
def watched_loading(server: RunningServer, name: str, progress: Progress) -> Iterator[None]:
    """Read the log of a server on this machine along with the block; a LoadFailed in it gets the worker's own cause."""
    progress.doing(f"{name}: loading")
    if server.local is None:
        with _pointing_to_the_log(name):
            yield
        return
    log = ServerLog.from_now_on(server.local.worker_log)
    is_over = threading.Event()
    reader = threading.Thread(target=_tell_activity, args=(log, name, progress, is_over), daemon=True)
    reader.start()
    try:
        yield
    except LoadFailed:
        _end(reader, is_over)
        raise LoadFailed(f"{name} failed to load: {_cause(log, name)} (log: {server.local.worker_log})") from None
    finally:
        _end(reader, is_over)


@contextmanager
def _pointing_to_the_log(name: str) -> Iterator[None]:
    try:
        yield
    except LoadFailed:
        raise LoadFailed(f"{name} failed to load: its server's log (torchserve.log or model_log.log) says why") from None


def _tell_activity(log: ServerLog, name: str, progress: Progress, is_over: threading.Event) -> None:
    told = ""
    while not is_over.wait(_POLL_S):
        log.update()
        if (activity := log.activity(name)) != told:
            progress.doing(f"{name}: {activity}")
            told = activity


def _end(reader: threading.Thread, is_over: threading.Event) -> None:
    is_over.set()
    reader.join()


def _cause(log: ServerLog, name: str) -> str:
    deadline_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline_s:
        log.update()
        if cause := log.failure(name):
            return cause
        time.sleep(_POLL_S)
    return "its worker said nothing of why"
