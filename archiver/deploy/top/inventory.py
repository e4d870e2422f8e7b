"""What the management API says about all models, as long as it can be reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from archiver.deploy.management import ModelStatus, ModelSummary
from archiver.errors import ArchiverError

_AGAIN_S = 30.0


class Management(Protocol):
    """Tells what there is; raises ArchiverError if it cannot."""

    def list(self) -> Sequence[ModelSummary]: ...

    def versions(self, name: str) -> Sequence[ModelStatus]: ...

    def close(self) -> None: ...


class Inventory:
    """Asks whom ``connect`` returns. Who does not answer is left alone for half a minute: a view must not wait. Not thread-safe."""

    def __init__(self, connect: Callable[[], Management], clock: Callable[[], float] = time.monotonic) -> None:
        self._connect = connect
        self._clock = clock
        self._management: Management | None = None
        self._closed_until_s = 0.0

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return every version of every model; nothing while the management API is out of reach."""
        if self._clock() < self._closed_until_s:
            return ()
        try:
            management = self._management = self._management or self._connect()
            return tuple(status for model in management.list() for status in management.versions(model.name))
        except ArchiverError:
            self._closed_until_s = self._clock() + _AGAIN_S
            self.close()
            return ()

    def close(self) -> None:
        """Close the connections."""
        if self._management is not None:
            self._management.close()
            self._management = None
