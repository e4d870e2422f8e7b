"""Whether a synchronous worker takes what the frontend hands it: so that it can stop, or be removed, and no client pays for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from handlers.config import check_seconds


class Gate:
    """Open at first; ``drain`` closes it, and ``park`` makes the next description of the model wait in it. Thread-safe.

    Why parking: a batch that a worker has when TorchServe 0.12 removes it is answered with a 500. A worker that is busy with a description
    of its model (``GET /models/<name>?customized=true``) has no client's request.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards everything below
        self._has_batch = False
        self._is_draining = False
        self._park_until_s = 0.0
        self._is_parked = False

    @contextmanager
    def batch(self) -> Iterator[bool]:
        """Enclose the work on one batch; yield whether it may be worked on, or is to be refused because the worker is draining."""
        with self._changed:
            is_open = not self._is_draining
            self._has_batch = is_open
        try:
            yield is_open
        finally:
            with self._changed:
                self._has_batch = False
                self._changed.notify_all()

    def wait_while_parked(self) -> None:
        """Return at once, unless the worker is to be parked: then when it no longer is."""
        with self._changed:
            self._is_parked = self._park_until_s > time.monotonic()
            while self._is_parked and (left_s := self._park_until_s - time.monotonic()) > 0:
                self._changed.wait(left_s)
            self._is_parked = False

    def drain(self, timeout_s: float = 60.0) -> bool:
        """Refuse all further batches, and wait until the present one is done; return whether that was reached in time."""
        with self._changed:
            self._is_draining = True
            return self._changed.wait_for(lambda: not self._has_batch, check_seconds(timeout_s))

    def park(self, timeout_s: float = 60.0) -> None:
        """Have the next description wait until ``unpark``, or ``timeout_s`` from now. Keep it below the model's ``responseTimeout``."""
        with self._changed:
            self._park_until_s = time.monotonic() + check_seconds(timeout_s)

    def unpark(self) -> None:
        """Let a parked worker go on, and one that is not parked yet stay so."""
        with self._changed:
            self._park_until_s = 0.0
            self._changed.notify_all()

    def describe(self) -> dict[str, Any]:
        """Return what the worker is doing, as plain JSON values."""
        with self._changed:
            return {"working": self._has_batch, "draining": self._is_draining, "parked": self._is_parked}

    def commands(self) -> dict[str, Callable[..., Any]]:
        """Return what an operator may order of it over the control socket."""
        return {"describe": self.describe, "drain": self.drain, "park": self.park, "unpark": self.unpark}
