"""The EngineClient of engines in processes of their own, one or more replicas."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from handlers.engine.admission import EngineLimits
from handlers.engine.client import EngineStats, Event
from handlers.engine.process.dispatcher import Dispatcher
from handlers.engine.process.fleet import Divide, Fleet, Launch
from handlers.engine.process.launch import EngineProcess
from handlers.engine.process.placement import divide
from handlers.engine.process.protocol import Add
from handlers.engine.process.source import EngineBuilder, EngineSource
from handlers.errors import SHUTTING_DOWN, ConfigError, Unavailable
from handlers.requests import SamplingParams

logger = logging.getLogger(__name__)


_TICK_S = 0.1
_WATCH_S = 0.1
"""How often the engines hear that somebody waits for news."""
_AWAY_S = 0.3
"""Without a call for so long nobody waits: engines may stop, and are not taken for hung."""
_END_S = 10.0
"""How long killed processes may take to end."""


def start_process_client(handler: EngineBuilder) -> ProcessClient:
    """Start the engines of a handler, as configured and each with its share of the machine; raise ConfigError if one cannot load."""
    source, config = EngineSource.of(handler), handler.config.engine
    return ProcessClient(
        partial(EngineProcess, source),
        replicas=config.replicas,
        step_timeout_s=config.step_timeout_s,
        divide=partial(divide, num_ranks=config.tensor_parallel),
    )


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """One replica, for whoever watches: "loading", "ready" or "draining" (no longer wanted), with the number of its sequences and ranks."""

    pid: int
    state: str
    sequences: int
    ranks: int = 1


class ProcessClient:
    """Engines in child processes; the constructor returns when all ``replicas`` have loaded, and raises ConfigError if one cannot.

    A process that dies, or has work and finishes no step for ``step_timeout_s``, is started again. Sequences of which nothing was heard yet
    go to another replica or wait for it; the others end with an error. Calls read and write the sockets themselves, and none waits for an
    engine to read; one thread starts, watches and ends the processes.
    """

    def __init__(self, launch: Launch, *, replicas: int, step_timeout_s: float, divide: Divide = divide) -> None:
        self._step_timeout_s = step_timeout_s
        self._lock = threading.Lock()  # guards everything below
        self._has_ticked = threading.Condition(self._lock)
        self._fleet = Fleet(launch, replicas, divide)
        self._dispatcher = Dispatcher(self._fleet)
        self._seen_s = self._watch_s = 0.0
        self._is_draining = False
        self._is_closed = False

        self._supervisor = threading.Thread(target=self._supervise, name="engine supervisor", daemon=True)
        self._supervisor.start()
        self._limits = self._await_limits()

    @property
    def limits(self) -> EngineLimits:
        """What each replica can take on."""
        return self._limits

    @property
    def max_model_len(self) -> int:
        """The longest sequence; see EngineClient."""
        return self._limits.max_model_len

    def add(
        self,
        sequence_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        max_queue_s: float | None = None,
    ) -> None:
        """Admit a sequence; see EngineClient. Raises ValueError for an id that is in use."""
        self._limits.check(prompt_token_ids, params)
        with self._lock:
            self._check_open()
            if sequence_id in self._dispatcher.live or sequence_id in self._dispatcher.inbox:
                raise ValueError(f"a sequence {sequence_id!r} is live already, or its last event has not been polled")
            order = Add(sequence_id, prompt_token_ids, params, priority, max_queue_s)
            self._dispatcher.add(order, self._max_held, self._note_caller())

    def check_room(self) -> None:
        """Refuse beforehand what ``add`` would refuse; see EngineClient."""
        with self._lock:
            self._check_open()
            self._dispatcher.check_room(self._max_held)

    def cancel(self, sequence_id: str) -> None:
        """End a sequence; see EngineClient."""
        with self._lock:
            self._dispatcher.cancel(sequence_id)

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait for news, at most ``timeout_s``; see EngineClient."""
        self._wait_for(lambda: len(self._dispatcher.inbox) > 0, timeout_s)
        with self._lock:
            return self._dispatcher.inbox.take_all()

    def stats(self) -> EngineStats:
        """Return the sum over the replicas, as they reported it less than a second ago; step times are the slowest one's."""
        with self._lock:
            return self._dispatcher.stats()

    def drain(self, timeout_s: float) -> bool:
        """Refuse new sequences and finish what is live, polled or not; see EngineClient."""
        with self._lock:
            self._is_draining = True
        return self._wait_for(lambda: not self._dispatcher.live, timeout_s)

    def scale(self, replicas: int) -> None:
        """Want another number of replicas, among which the machine is divided anew; meanwhile all are served. Raises what dividing does."""
        if replicas < 1:
            raise ValueError(f"at least one replica must remain, got {replicas}")
        with self._lock:
            self._fleet.scale(replicas)

    def replicas(self) -> list[ReplicaState]:
        """Return the replicas that there are now."""
        with self._lock:
            return [
                ReplicaState(replica.process.pid, self._fleet.state(replica), len(replica.sequences), replica.place.num_ranks)
                for replica in self._fleet.replicas.values()
            ]

    def close(self) -> None:
        """End the processes, whatever they do; live sequences end with an error event."""
        with self._lock:
            self._is_closed = True
            self._dispatcher.end_live(SHUTTING_DOWN)
            self._has_ticked.notify_all()
        self._supervisor.join()

    @property
    def _max_held(self) -> int:
        """How many sequences may wait while no engine is there."""
        return self._limits.max_running + self._limits.max_waiting

    def _check_open(self) -> None:
        if self._is_draining or self._is_closed:
            raise Unavailable(SHUTTING_DOWN)

    def _wait_for(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        """Take in news until ``is_done()``, the time is over or the client is closed; return whether it is done."""
        until_s = time.monotonic() + timeout_s
        while True:
            with self._lock:
                now_s = self._note_caller()
                self._dispatcher.receive(now_s)
                left_s = until_s - now_s
                if is_done() or left_s <= 0 or self._is_closed:
                    return is_done()
                sockets = self._fleet.sockets()
            sockets.poll(min(left_s, _WATCH_S) * 1000)

    def _note_caller(self) -> float:
        """Note that somebody is there, and have the engines know; return the time."""
        now_s = time.monotonic()
        if now_s - self._seen_s > _AWAY_S:
            self._fleet.excuse(now_s)
        self._seen_s = now_s
        if now_s - self._watch_s > _WATCH_S:
            self._watch_s = now_s
            self._dispatcher.watch()
        return now_s

    # The supervisor's side.

    def _supervise(self) -> None:
        """Start, watch and end the processes. They end with this thread, which therefore ends last."""
        with self._lock:
            while not self._is_closed:
                try:
                    self._tick(time.monotonic())
                except Exception:  # whatever it is, the engines that run must not pay for it
                    logger.exception("the engines could not be supervised")
                self._has_ticked.notify_all()
                self._has_ticked.wait(_TICK_S)
            self._fleet.end_all()
        self._fleet.bury(_END_S)

    def _tick(self, now_s: float) -> None:
        self._fleet.start_missing(now_s)
        self._dispatcher.receive(now_s)
        if now_s - self._seen_s < _AWAY_S:
            self._dispatcher.end_hung(self._step_timeout_s, now_s)
        self._dispatcher.start_held(now_s)
        self._fleet.retire_surplus()
        self._fleet.bury()

    def _await_limits(self) -> EngineLimits:
        """Wait until all engines have loaded; close and raise if one failed to."""
        with self._lock:
            self._has_ticked.wait_for(lambda: self._dispatcher.load_failure or self._fleet.has_all)
            failure = self._dispatcher.load_failure
            limits = [replica.limits for replica in self._fleet.ready.values() if replica.limits]
        if failure is None:
            return min(limits, key=lambda limit: limit.max_model_len)
        self.close()
        raise ConfigError(failure.message) if failure.is_config else RuntimeError(failure.message)
