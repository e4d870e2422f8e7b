"""An engine in a thread of this process: commands in, events out, and nobody generates for clients that have left."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from handlers.engine.client import EngineStats, Event
from handlers.engine.engine import Engine
from handlers.engine.meter import Meter
from handlers.engine.sequence import Sequence
from handlers.errors import Overloaded, Unavailable
from handlers.requests import SamplingParams

logger = logging.getLogger(__name__)

_SHUTTING_DOWN = "the server is shutting down"


class ThreadClient:
    """An EngineClient whose engine runs in one thread. At most ``max_waiting`` sequences beyond the engine's slots are live at once.

    The engine works only while somebody watches. ``idle_pause_s`` after the last ``add``, ``poll`` or ``drain`` it stops stepping until the
    next one; ``abandon_after_s`` after it, everything live is cancelled. (TorchServe does not say that its last client has left: it just
    stops asking.) A step that raises fails the sequences that took part in it, and the thread goes on.
    """

    def __init__(self, engine: Engine, *, max_waiting: int, idle_pause_s: float = 0.5, abandon_after_s: float = 30.0) -> None:
        self.max_model_len = engine.max_model_len
        self._engine = engine  # only the thread steps it
        self._capacity = engine.num_slots + max_waiting
        self._idle_pause_s = idle_pause_s
        self._abandon_after_s = abandon_after_s

        self._lock = threading.Lock()  # guards everything below
        self._has_work = threading.Condition(self._lock)  # the thread waits here
        self._has_news = threading.Condition(self._lock)  # poll and drain wait here
        self._commands: list[Sequence | str] = []  # a sequence to add, or the id of one to cancel
        self._live: set[str] = set()  # admitted, and without a terminal event so far
        self._events: dict[str, Event] = {}  # by sequence, until polled
        self._num_watchers = 0  # calls of poll and drain in progress
        self._last_seen_s = time.monotonic()
        self._num_running = 0
        self._meter = Meter()
        self._is_draining = False
        self._is_closed = False

        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    def add(self, sequence_id: str, prompt_token_ids: Iterable[int], params: SamplingParams) -> None:
        """Admit a sequence; see EngineClient."""
        sequence = self._engine.new_sequence(sequence_id, prompt_token_ids, params)
        with self._lock:
            if self._is_draining or self._is_closed:
                raise Unavailable(_SHUTTING_DOWN)
            if len(self._live) >= self._capacity:
                raise Overloaded(f"all {self._capacity} places are taken; try again later")
            if sequence_id in self._live or sequence_id in self._events:
                raise ValueError(f"a sequence {sequence_id!r} is live already, or its last event has not been polled")
            self._live.add(sequence_id)
            self._commands.append(sequence)
            self._last_seen_s = time.monotonic()
            self._has_work.notify()

    def cancel(self, sequence_id: str) -> None:
        """End a sequence within one step; see EngineClient."""
        with self._lock:
            self._commands.append(sequence_id)
            self._has_work.notify()

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait for news, at most ``timeout_s``; see EngineClient."""
        with self._watching():
            self._has_news.wait_for(lambda: self._events or self._is_closed, timeout_s)
            events = list(self._events.values())
            self._events.clear()
            return events

    def stats(self) -> EngineStats:
        """Return a snapshot; see EngineClient."""
        with self._lock:
            return EngineStats(
                running=self._num_running,
                waiting=len(self._live) - self._num_running,
                slots_used=self._num_running,
                slots_total=self._engine.num_slots,
                steps=self._meter.steps,
                generated_tokens=self._meter.generated_tokens,
                step_ms_p50=self._meter.step_ms(0.50),
                step_ms_p99=self._meter.step_ms(0.99),
            )

    def drain(self, timeout_s: float) -> bool:
        """Refuse new work and finish what is live, polled or not; see EngineClient."""
        with self._watching():
            self._is_draining = True
            return self._has_news.wait_for(lambda: not self._live, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop the thread after its current step; live sequences end with an error event. A step that hangs longer is left behind."""
        with self._lock:
            self._is_closed = True
            self._has_work.notify()
        self._thread.join(timeout_s)
        with self._lock:
            self._publish([Event(sequence_id, finish_reason="error", error=_SHUTTING_DOWN) for sequence_id in self._live])

    @contextmanager
    def _watching(self) -> Iterator[None]:
        with self._lock:
            self._num_watchers += 1
            self._has_work.notify()
            try:
                yield
            finally:
                self._num_watchers -= 1
                self._last_seen_s = time.monotonic()

    # The thread's side.

    def _serve(self) -> None:
        while True:
            with self._lock:
                self._await_turn()
                if self._is_closed:
                    return
                commands, self._commands = self._commands, []
                is_watched = self._silence_s() < self._idle_pause_s
            started_s = time.monotonic()
            events = self._take_turn(commands, is_watched)
            with self._lock:
                self._num_running = self._engine.num_running
                if is_watched:
                    self._meter.record_step(time.monotonic() - started_s, sum(len(event.token_ids) for event in events))
                self._publish(events)

    def _await_turn(self) -> None:
        """Wait until there is a command, or work that somebody watches; cancel what nobody has watched for too long."""
        while not (self._is_closed or self._commands):
            silence_s = self._silence_s()
            if self._live and silence_s < self._idle_pause_s:
                return
            if self._live and silence_s >= self._abandon_after_s:
                logger.warning("nobody asked for news for %.0f s: cancelling %d sequences", silence_s, len(self._live))
                self._commands.extend(self._live)
                return
            self._has_work.wait(self._abandon_after_s - silence_s if self._live else None)

    def _silence_s(self) -> float:
        return 0.0 if self._num_watchers else time.monotonic() - self._last_seen_s

    def _take_turn(self, commands: list[Sequence | str], is_watched: bool) -> list[Event]:
        events: list[Event] = []
        try:
            for command in commands:
                events += self._apply(command)
            if is_watched:
                events += self._engine.step()
        except Exception:  # whatever a model can raise: the engine must outlive it
            logger.exception("the engine's step failed; failing the sequences that took part in it")
            events += self._engine.recover()
        return events

    def _apply(self, command: Sequence | str) -> list[Event]:
        if isinstance(command, Sequence):
            self._engine.add(command)
            return []
        event = self._engine.cancel(command)
        return [event] if event else []

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            if event.sequence_id not in self._live:
                continue  # closed while its step was hanging
            earlier = self._events.get(event.sequence_id)
            self._events[event.sequence_id] = _joined(earlier, event) if earlier else event
            if event.finish_reason is not None:
                self._live.discard(event.sequence_id)
        self._has_news.notify_all()


def _joined(earlier: Event, later: Event) -> Event:
    return replace(later, token_ids=earlier.token_ids + later.token_ids)
