"""Wait until every model of a server answers, or say why one does not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from archiver.deploy.management import LoadFailed, ManagementError, ModelStatus
from archiver.errors import ArchiverError

_POLL_S = 0.1


class ServerDied(ArchiverError):
    """TorchServe itself ended before the models were ready."""


class Describer(Protocol):
    """Tells a model's status, or raises ManagementError while it cannot."""

    def describe(self, name: str) -> ModelStatus: ...


class Log(Protocol):
    """Tells what workers do and why they failed."""

    def update(self) -> None: ...

    def activity(self, model: str) -> str: ...

    def failure(self, model: str) -> str | None: ...


def wait_until_ready(
    models: Iterable[str], management: Describer, log: Log, is_running: Callable[[], bool], progress: Callable[[str], None] = lambda _: None
) -> None:
    """Return when all ``models`` are ready; ``progress`` is told what is being waited for, in a few words.

    There is no time limit of our own: loading takes as long as the weights are large, and the frontend gives up after the archive's
    ``startupTimeout``, which counts as a failed load here. The first failed load ends the wait; TorchServe would go on trying for minutes.

    Raises LoadFailed with the worker's own cause, or ServerDied.
    """
    waiting = list(models)
    while waiting:
        # In this order: what a server wrote before it ended is read after it was seen to have ended.
        was_running = is_running()
        log.update()
        for model in waiting:
            if failure := log.failure(model):
                raise LoadFailed(f"{model} failed to load: {failure}")
        if not was_running:
            raise ServerDied("TorchServe ended before it was ready")
        statuses = {model: _status(model, management) for model in waiting}
        waiting = [model for model, status in statuses.items() if status is None or not status.is_ready]
        if waiting:
            progress(_activity(waiting[0], statuses[waiting[0]], log))
            time.sleep(_POLL_S)


def _status(model: str, management: Describer) -> ModelStatus | None:
    try:
        return management.describe(model)
    except ManagementError:
        return None


def _activity(model: str, status: ModelStatus | None, log: Log) -> str:
    if status is None:  # the frontend answers when it has unpacked the archives
        return f"starting TorchServe with {model}"
    return f"{model}: {log.activity(model) or 'starting its worker'}"
