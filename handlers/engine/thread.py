"""An engine in a thread of this process: commands in, events out, and nobody generates for clients that have left."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from handlers.engine.admission import Admission, EngineLimits
from handlers.engine.client import EngineStats, Event
from handlers.engine.engine import Engine
from handlers.engine.inbox import Inbox
from handlers.engine.meter import Meter
from handlers.engine.sequence import Sequence
from handlers.errors import SHUTTING_DOWN, Unavailable
from handlers.requests import SamplingParams

logger = logging.getLogger(__name__)


class ThreadClient:
    """An EngineClient whose engine runs in one thread, which is the only one to step it.

    The engine works only while somebody watches. ``idle_pause_s`` after the last ``add``, ``poll`` or ``drain`` it stops stepping until the
    next one; ``abandon_after_s`` after it, everything live is cancelled. (TorchServe does not say that its last client has left: it just
    stops asking.) A step that raises fails the sequences that took part in it, and the thread goes on.
    """

    def __init__(self, engine: Engine, *, idle_pause_s: float = 0.5, abandon_after_s: float = 30.0) -> None:
        self._engine = engine
        self._idle_pause_s = idle_pause_s
        self._abandon_after_s = abandon_after_s

        self._lock = threading.Lock()  # guards everything below
        self._has_work = threading.Condition(self._lock)  # the thread waits here
        self._has_news = threading.Condition(self._lock)  # poll and drain wait here
        self._commands: list[Sequence | str] = []  # a sequence to add, or the id of one to cancel
        self._admission = Admission(engine.limits)
        self._inbox = Inbox()  # what has not been polled yet
        self._num_watchers = 0  # calls of poll and drain in progress
        self._last_seen_s = time.monotonic()
        self._engine_stats = engine.stats()
        self._meter = Meter()
        self._is_draining = False
        self._is_closed = False

        self._thread = threading.Thread(target=self._serve, name="engine", daemon=True)
        self._thread.start()

    @property
    def limits(self) -> EngineLimits:
        """What the engine can take on."""
        return self._engine.limits

    @property
    def max_model_len(self) -> int:
        """The longest sequence; see EngineClient."""
        return self.limits.max_model_len

    def add(
        self,
        sequence_id: str,
        prompt_token_ids: Iterable[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        max_queue_s: float | None = None,
    ) -> None:
        """Admit a sequence; see EngineClient. Raises ValueError for an id that is in use."""
        sequence = self._engine.new_sequence(sequence_id, prompt_token_ids, params, priority=priority, max_queue_s=max_queue_s)
        with self._lock:
            self._check_open()
            if sequence_id in self._admission.live or sequence_id in self._inbox:
                raise ValueError(f"a sequence {sequence_id!r} is live already, or its last event has not been polled")
            self._admission.admit(sequence_id, sequence.num_prompt_tokens)
            self._commands.append(sequence)
            self._last_seen_s = time.monotonic()
            self._has_work.notify()

    def check_room(self) -> None:
        """Refuse beforehand what ``add`` would refuse; see EngineClient."""
        with self._lock:
            self._check_open()
            self._admission.check_room()

    def cancel(self, sequence_id: str) -> None:
        """End a sequence within one step; see EngineClient."""
        with self._lock:
            self._commands.append(sequence_id)
            self._has_work.notify()

    def poll(self, timeout_s: float) -> list[Event]:
        """Wait for news, at most ``timeout_s``; see EngineClient."""
        with self._watching():
            self._has_news.wait_for(lambda: len(self._inbox) > 0 or self._is_closed, timeout_s)
            return self._inbox.take_all()

    def stats(self) -> EngineStats:
        """Return a snapshot; see EngineClient."""
        with self._lock:
            return replace(
                self._engine_stats,
                waiting=len(self._admission.live) - self._engine_stats.running,
                generated_tokens=self._meter.generated_tokens,
                tokens_per_s=self._meter.tokens_per_s(time.monotonic()),
                step_ms_p50=self._meter.step_ms(0.50),
                step_ms_p99=self._meter.step_ms(0.99),
            )

    def drain(self, timeout_s: float) -> bool:
        """Refuse new work and finish what is live, polled or not; see EngineClient."""
        with self._watching():
            self._is_draining = True
            return self._has_news.wait_for(lambda: not self._admission.live, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop the thread after its current step; live sequences end with an error event. A step that hangs longer is left behind."""
        with self._lock:
            self._is_closed = True
            self._has_work.notify()
        self._thread.join(timeout_s)
        with self._lock:
            self._publish([Event(sequence_id, finish_reason="error", error=SHUTTING_DOWN) for sequence_id in self._admission.live])

    def _check_open(self) -> None:
        if self._is_draining or self._is_closed:
            raise Unavailable(SHUTTING_DOWN)

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
                self._note_turn(started_s, events)
                self._publish(events)

    def _await_turn(self) -> None:
        """Wait for a command, work that somebody watches, or a deadline; cancel what nobody has watched for too long."""
        while not (self._is_closed or self._commands):
            if not self._admission.live:
                self._has_work.wait()
                continue
            silence_s = self._silence_s()
            if silence_s < self._idle_pause_s:
                return
            if silence_s >= self._abandon_after_s:
                logger.warning("nobody asked for news for %.0f s: cancelling %d sequences", silence_s, len(self._admission.live))
                self._commands.extend(self._admission.live)
                return
            wait_s = min(self._abandon_after_s - silence_s, self._engine.next_deadline_s - time.monotonic())
            if wait_s <= 0:
                return
            self._has_work.wait(wait_s)

    def _silence_s(self) -> float:
        return 0.0 if self._num_watchers else time.monotonic() - self._last_seen_s

    def _take_turn(self, commands: list[Sequence | str], is_watched: bool) -> list[Event]:
        events: list[Event] = []
        try:
            for command in commands:
                events += self._apply(command)
            events += self._engine.expire()
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

    def _note_turn(self, started_s: float, events: list[Event]) -> None:
        num_steps_before, self._engine_stats = self._engine_stats.steps, self._engine.stats()
        if self._engine_stats.steps > num_steps_before:
            self._meter.record_step(started_s, time.monotonic(), sum(len(event.token_ids) for event in events))

    def _publish(self, events: list[Event]) -> None:
        for event in events:
            if event.sequence_id not in self._admission.live:
                continue  # closed while its step was hanging
            self._inbox.put(event)
            self._admission.note(event)
        self._has_news.notify_all()
