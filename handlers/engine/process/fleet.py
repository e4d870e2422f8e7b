"""Keep the wanted number of engine processes alive: start, restart, retire and bury them."""

from __future__ import annotations

import logging
import select
from collections.abc import Callable

from handlers.engine.client import EngineStats
from handlers.engine.process.launch import EngineProcess
from handlers.engine.process.replica import Replica
from handlers.engine.process.statistics import add_up, totals

logger = logging.getLogger(__name__)

Launch = Callable[[int, int], EngineProcess]
"""Start the process of one replica of so many."""

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0
_STABLE_S = 60.0
"""A replica that has lived for so long is restarted as if it were the first time."""


class Fleet:
    """Replicas by index; those at ``wanted`` and above finish what they have and go. Not thread-safe."""

    def __init__(self, launch: Launch, wanted: int) -> None:
        self.wanted = wanted
        self.replicas: dict[int, Replica] = {}
        self._launch = launch
        self._past = EngineStats()
        self._dead: list[EngineProcess] = []  # killed, and not yet out of the system's table
        self._pauses_s: dict[int, float] = {}  # before the latest restart
        self._start_at_s: dict[int, float] = {}

    @property
    def ready(self) -> dict[int, Replica]:
        """The replicas that new sequences may go to."""
        return {index: replica for index, replica in self.replicas.items() if replica.is_ready and index < self.wanted}

    def start_missing(self, now_s: float) -> None:
        """Start what is wanted and not there, unless it died a moment ago."""
        for index in range(self.wanted):
            if index not in self.replicas and now_s >= self._start_at_s.get(index, now_s):
                self._start(index, now_s)

    def remove(self, replica: Replica, now_s: float) -> None:
        """Forget a replica whose process has ended, or must; if it is wanted, another will take its place."""
        del self.replicas[replica.index]
        self._end(replica)
        if now_s - replica.started_s >= _STABLE_S:
            self._pauses_s.pop(replica.index, None)
        self._back_off(replica.index, now_s)

    def retire_surplus(self) -> None:
        """End replicas that are no longer wanted and have nothing left to do."""
        for replica in list(self.replicas.values()):
            if replica.index >= self.wanted and not replica.sequences:
                logger.info("engine process %d is no longer needed", replica.process.pid)
                del self.replicas[replica.index]
                self._end(replica)

    def hung(self, step_timeout_s: float, now_s: float) -> list[Replica]:
        """Return the replicas that have work and have not got on with it for too long."""
        return [replica for replica in self.replicas.values() if replica.sequences and now_s - replica.progress_s > step_timeout_s]

    def excuse(self, now_s: float) -> None:
        """Start the watchdog's clocks anew: nobody waited for anything."""
        for replica in self.replicas.values():
            replica.progress_s = now_s

    def state(self, replica: Replica) -> str:
        """Return "loading", "ready", or "draining" for one that is no longer wanted."""
        if replica.index >= self.wanted:
            return "draining"
        return "ready" if replica.is_ready else "loading"

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
        for replica in self.replicas.values():
            self._end(replica)
        self.replicas.clear()

    def _start(self, index: int, now_s: float) -> None:
        try:
            process = self._launch(index, self.wanted)
        except OSError as error:
            logger.error("cannot start an engine process: %s", error)
            self._back_off(index, now_s)
            return
        self.replicas[index] = Replica(index, process, now_s)

    def _back_off(self, index: int, now_s: float) -> None:
        """Let the next start wait, twice as long each time."""
        self._pauses_s[index] = min(2 * self._pauses_s.get(index, _FIRST_PAUSE_S / 2), _LONGEST_PAUSE_S)
        self._start_at_s[index] = now_s + self._pauses_s[index]

    def _end(self, replica: Replica) -> None:
        replica.process.end()
        self._dead.append(replica.process)
        self._past = add_up([self._past, totals(replica.stats)])
