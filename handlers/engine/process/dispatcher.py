"""Which sequence is where: admitted, handed to a replica, reported on, and taken elsewhere when its replica is lost."""

from __future__ import annotations

import logging
from dataclasses import replace

from handlers.engine.client import EngineStats, Event
from handlers.engine.inbox import Inbox
from handlers.engine.process.fleet import Fleet
from handlers.engine.process.protocol import Add, Events, Hello, LoadFailed, Message, Report, Watch
from handlers.engine.process.replica import LiveSequence, Replica
from handlers.engine.process.router import Router
from handlers.errors import Overloaded, Unavailable

logger = logging.getLogger(__name__)

LOST = "the engine process failed while it worked on this request; it is being restarted, try again"
NO_ROOM_TO_WAIT = "the engine is being restarted, and no more requests can wait for it; try again later"
NOT_BACK = "the engine process failed and was not back in time; try again later"

_HOLD_S = 60.0
"""How long a sequence waits for an engine to come back."""
_MAX_LOSSES = 2
"""So many engines may be lost with a sequence that has not begun: it might be the cause."""


class Dispatcher:
    """Sequences and the fleet that works on them. No method waits, and all times are of one monotonic clock. Not thread-safe."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.live: dict[str, LiveSequence] = {}
        self.inbox = Inbox()
        self.load_failure: LoadFailed | None = None
        """Why a replica failed while it loaded, if one did."""
        self._held: list[LiveSequence] = []  # live ones that no engine has
        self._router = Router()

    def stats(self) -> EngineStats:
        """Return the sum over the engines as they last reported, and what waits for one."""
        total = self.fleet.stats()
        return replace(total, waiting=total.waiting + len(self._held))

    def check_room(self, max_held: int) -> None:
        """Raise what ``add`` would for the shortest sequence."""
        refusal: Overloaded | None = None
        for replica in self.fleet.ready.values():
            try:
                return replica.check_room()
            except Overloaded as error:
                refusal = error
        if refusal is not None:
            raise refusal
        if len(self._held) >= max_held:
            raise Unavailable(NO_ROOM_TO_WAIT)

    def add(self, order: Add, max_held: int, now_s: float) -> None:
        """Admit a sequence. Raises Overloaded if no replica has room, Unavailable if none is there and ``max_held`` wait already."""
        sequence = LiveSequence(order.sequence_id, order, now_s)
        if self.fleet.ready:
            self._start(sequence, order, now_s)
        elif len(self._held) < max_held:
            self._held.append(sequence)
        else:
            raise Unavailable(NO_ROOM_TO_WAIT)
        self.live[sequence.id] = sequence

    def cancel(self, sequence_id: str) -> None:
        """End a sequence; ignore unknown ids."""
        sequence = self.live.get(sequence_id)
        if sequence is None:
            return
        sequence.is_cancelled = True
        if sequence.replica is not None:
            sequence.replica.cancel(sequence_id)
        else:
            self._end_held(sequence, Event(sequence_id, finish_reason="cancelled"))

    def watch(self) -> None:
        """Tell the engines that somebody waits for news."""
        for replica in self.fleet.replicas.values():
            if replica.sequences:
                replica.process.send(Watch())

    def receive(self, now_s: float) -> None:
        """Take in what the engines have said, and notice those that are gone."""
        for replica in list(self.fleet.replicas.values()):
            try:
                messages = replica.process.exchange()
            except EOFError:
                self._note_end(replica)
                self._lose(replica, now_s)
                continue
            for message in messages:
                self._take(replica, message, now_s)

    def end_hung(self, step_timeout_s: float, now_s: float) -> None:
        """Give up replicas that do not get on."""
        for replica in self.fleet.hung(step_timeout_s, now_s):
            logger.error("engine process %d has finished no step for %.1f s: ending it", replica.process.pid, now_s - replica.progress_s)
            self._lose(replica, now_s)

    def start_held(self, now_s: float) -> None:
        """Hand over what waits for an engine, if one is back, and end what has waited too long."""
        for sequence in sorted(self._held, key=lambda held: (held.order.priority, held.admitted_s)):
            order, waited_s = sequence.order, now_s - sequence.admitted_s
            if order.max_queue_s is not None and waited_s >= order.max_queue_s:
                self._end_held(sequence, Event(sequence.id, finish_reason="expired"))
            elif waited_s >= _HOLD_S:
                self._end_held(sequence, Event(sequence.id, finish_reason="error", error=NOT_BACK))
            elif self.fleet.ready:
                left_s = None if order.max_queue_s is None else order.max_queue_s - waited_s
                self._try_start(sequence, replace(order, max_queue_s=left_s), now_s)

    def end_live(self, error: str) -> None:
        """End every sequence with an error event."""
        for sequence_id in self.live:
            self.inbox.put(Event(sequence_id, finish_reason="error", error=error))
        for replica in self.fleet.replicas.values():
            replica.sequences.clear()  # Nothing more is heard of them.
        self.live.clear()
        self._held.clear()

    def _try_start(self, sequence: LiveSequence, order: Add, now_s: float) -> None:
        try:
            self._start(sequence, order, now_s)
        except Overloaded:
            return  # Its turn comes when another sequence ends.
        self._held.remove(sequence)

    def _start(self, sequence: LiveSequence, order: Add, now_s: float) -> None:
        """Hand a sequence to the best replica that has room; one at least must be ready. Raises Overloaded if none has."""
        candidates = self.fleet.ready
        while True:
            loads = {number: len(replica.sequences) for number, replica in candidates.items()}
            try:
                candidates.pop(self._router.choose(order.prompt_token_ids, loads)).start(sequence, order, now_s)
                return
            except Overloaded:
                if not candidates:
                    raise

    def _take(self, replica: Replica, message: Message, now_s: float) -> None:
        match message:
            case Events(events):
                for event in events:
                    self._take_event(replica, event, now_s)
            case Report(stats):
                replica.take_report(stats, now_s)
            case Hello(limits):
                replica.welcome(limits)
            case LoadFailed():
                self.load_failure = message

    def _take_event(self, replica: Replica, event: Event, now_s: float) -> None:
        if event.sequence_id not in replica.sequences:
            return
        if event.start is not None:
            waited_s = replica.sequences[event.sequence_id].waited_s
            event = replace(event, start=replace(event.start, queue_s=event.start.queue_s + waited_s))
        replica.take(event, now_s)
        self.inbox.put(event)
        if event.finish_reason is not None:
            del self.live[event.sequence_id]

    def _note_end(self, replica: Replica) -> None:
        message = f"engine process {replica.process.pid} has ended: {replica.process.last_words()}"
        logger.error("%s", message)
        if not replica.is_ready and self.load_failure is None:
            self.load_failure = LoadFailed(message, is_config=False)

    def _lose(self, replica: Replica, now_s: float) -> None:
        """Go on without a replica: another takes over what it has not begun."""
        self.fleet.remove(replica, now_s)
        self._router.forget(replica.number)
        for sequence in replica.sequences.values():
            sequence.replica = None
            sequence.num_losses += 1
            self._held.append(sequence)
            if sequence.is_cancelled:
                self._end_held(sequence, Event(sequence.id, finish_reason="cancelled"))
            elif sequence.has_started or sequence.num_losses >= _MAX_LOSSES:
                self._end_held(sequence, Event(sequence.id, finish_reason="error", error=LOST))
        self.start_held(now_s)

    def _end_held(self, sequence: LiveSequence, event: Event) -> None:
        self._held.remove(sequence)
        del self.live[sequence.id]
        self.inbox.put(event)
