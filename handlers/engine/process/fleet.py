"""Keep the wanted number of engine processes alive: start, restart, retire and bury them."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable, Sequence
from dataclasses import replace

from handlers.engine.client import EngineStats
from handlers.engine.process.launch import EngineProcess
from handlers.engine.process.placement import Placement, divide
from handlers.engine.process.replica import Replica
from handlers.engine.process.statistics import add_up, totals

logger = logging.getLogger(__name__)

Launch = Callable[[Placement], EngineProcess]
Divide = Callable[[int], Sequence[Placement]]

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_STABLE_S = 60.0
"""After the loss of a replica that has lived for so long, pauses begin anew."""


class Fleet:
    """Replicas by number, in the order of their start. Not thread-safe; all times are of one monotonic clock.

    The machine is divided among those that are wanted. With another number of them the division changes, and who does not fit into it any
    more is replaced while the others serve: it gets no new sequences once there is another one in its stead, and ends when it has none.
    """

    def __init__(self, launch: Launch, wanted: int, divide: Divide = divide) -> None:
        self.replicas: dict[int, Replica] = {}
        self._launch = launch
        self._divide = divide
        self._past = EngineStats()
        self._dead: list[EngineProcess] = []  # killed, and not yet out of the system's table
        self._num_started = 0
        self._pause_s = 0.0  # before the latest restart
        self._start_at_s = 0.0
        self.scale(wanted)

    def scale(self, wanted: int) -> None:
        """Want another number of replicas."""
        self._places = list(self._divide(wanted))

    @property
    def has_all(self) -> bool:
        """Whether every wanted replica is ready."""
        return not self._missing() and all(replica.is_ready for replica in self.replicas.values())

    @property
    def ready(self) -> dict[int, Replica]:
        """The replicas that new sequences may go to."""
        draining = self._draining()
        return {replica.number: replica for replica in self.replicas.values() if replica.is_ready and replica not in draining}

    def state(self, replica: Replica) -> str:
        """Return "loading", "ready", or "draining" for one that gets no new sequences."""
        if replica in self._draining():
            return "draining"
        return "ready" if replica.is_ready else "loading"

    def start_missing(self, now_s: float) -> None:
        """Start what is wanted and not there, unless one died a moment ago; while others are replaced, there is one too many at most."""
        if now_s < self._start_at_s:
            return
        for place in self._missing():
            if len(self.replicas) > len(self._places):
                return
            self._start(place, now_s)

    def remove(self, replica: Replica, now_s: float) -> None:
        """Forget a replica whose process has ended, or must; if it is wanted, another will take its place."""
        self._end(replica)
        self._past = replace(self._past, restarts=self._past.restarts + 1)
        if now_s - replica.started_s >= _STABLE_S:
            self._pause_s = 0.0
        self._back_off(now_s)

    def retire_surplus(self) -> None:
        """End replicas that get no new sequences and have nothing left to do."""
        for replica in self._draining():
            if not replica.sequences:
                logger.info("engine process %d is no longer needed", replica.process.pid)
                self._end(replica)

    def hung(self, step_timeout_s: float, now_s: float) -> list[Replica]:
        """Return the replicas that have work and have not got on with it for too long."""
        return [replica for replica in self.replicas.values() if replica.sequences and now_s - replica.progress_s > step_timeout_s]

    def excuse(self, now_s: float) -> None:
        """Start the watchdog's clocks anew: nobody waited for anything."""
        for replica in self.replicas.values():
            replica.progress_s = now_s

    def stats(self) -> EngineStats:
        """Return the sum over all engines that there were."""
        return add_up([self._past, *(replica.stats for replica in self.replicas.values())])

    def sockets(self) -> select.poll:
        """Return what waits until a process has something to say, or takes what it did not take before."""
        sockets = select.poll()
        for replica in self.replicas.values():
            sockets.register(replica.process, select.POLLIN | (select.POLLOUT if replica.process.has_unsent else 0))
        return sockets

    def bury(self, timeout_s: float = 0.0) -> None:
        """Remove the dead from the system's table; wait ``timeout_s`` for each that is still dying."""
        self._dead = [process for process in self._dead if not process.is_gone(timeout_s)]

    def end_all(self) -> None:
        """Kill every process."""
        for replica in list(self.replicas.values()):
            self._end(replica)

    def _fit(self) -> tuple[list[Replica], list[Placement]]:
        """Return the replicas that have no place in the division, and the places that have no replica."""
        misfits, missing = [], list(self._places)
        for replica in self.replicas.values():
            if replica.place in missing:
                missing.remove(replica.place)
            else:
                misfits.append(replica)
        return misfits, missing

    def _missing(self) -> list[Placement]:
        return self._fit()[1]

    def _draining(self) -> list[Replica]:
        """Return the misfits in whose stead another replica is ready."""
        misfits, _ = self._fit()
        num_ready = sum(replica.is_ready and replica not in misfits for replica in self.replicas.values())
        return misfits[max(len(self._places) - num_ready, 0) :]

    def _start(self, place: Placement, now_s: float) -> None:
        try:
            process = self._launch(place)
        except OSError as error:
            logger.error("cannot start an engine process: %s", error)
            self._back_off(now_s)
            return
        self.replicas[self._num_started] = Replica(self._num_started, process, place, now_s)
        self._num_started += 1

    def _back_off(self, now_s: float) -> None:
        """Let the next start wait, twice as long each time."""
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S) or _FIRST_PAUSE_S
        self._start_at_s = now_s + self._pause_s

    def _end(self, replica: Replica) -> None:
        del self.replicas[replica.number]
        replica.process.end()
        self._dead.append(replica.process)
        self._past = add_up([self._past, totals(replica.stats)])
