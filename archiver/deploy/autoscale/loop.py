"""Look, decide, scale; again until told to stop."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from archiver.deploy.autoscale.policy import Decision, Policy, State, decide
from archiver.deploy.autoscale.watch import Look, VersionGone
from archiver.errors import ArchiverError, UsageError

Wait = Callable[[], bool]
"""Let the interval pass, and return whether to go on."""


class Log(Protocol):
    """Is told everything."""

    def note(self, look: Look, decision: Decision) -> None:
        """Take a decision, before it is carried out."""
        ...

    def note_failure(self, problem: str) -> None:
        """Take what went wrong."""
        ...


def autoscale(
    policy: Policy,
    look: Callable[[], Look],
    scale: Callable[[int], None],
    log: Log,
    wait: Wait,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Keep a model's replicas where the policy wants them until ``wait`` says that it is over.

    What fails is logged and tried again at the next interval; cool-downs then begin anew, for nobody knows what happened meanwhile. Raises
    UsageError for a model that cannot be scaled so, VersionGone if the version to scale was unregistered.
    """
    state = State(clock())
    while wait():
        try:
            seen = look()
            decision = decide(policy, state, seen.observation)
            state = decision.state
            log.note(seen, decision)
            if decision.order is not None:
                scale(decision.order)
        except (UsageError, VersionGone):
            raise
        except ArchiverError as error:
            state = State(clock())
            log.note_failure(str(error))


@contextmanager
def interval_until_stopped(interval_s: float) -> Iterator[Wait]:
    """Yield what waits for the next look and is over at SIGINT or SIGTERM; at a second one the program ends whatever it is doing."""
    stopped = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopped.set()
        restore()

    previous = {each: signal.signal(each, stop) for each in signals}

    def restore() -> None:
        for each, handler in previous.items():
            signal.signal(each, handler)

    try:
        yield lambda: not stopped.wait(interval_s)
    finally:
        restore()
