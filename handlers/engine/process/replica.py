"""One engine process as the worker sees it: what it works on, and whether it gets on with it."""

from __future__ import annotations

from dataclasses import dataclass

from handlers.engine.admission import Admission, EngineLimits
from handlers.engine.client import EngineStats, Event
from handlers.engine.process.launch import EngineProcess
from handlers.engine.process.placement import Placement
from handlers.engine.process.protocol import Add, Cancel


@dataclass(eq=False, slots=True)
class LiveSequence:
    """An admitted sequence without a terminal event. ``order`` starts it, here or elsewhere; it has started once it was heard of."""

    id: str
    order: Add
    admitted_s: float
    replica: Replica | None = None
    has_started: bool = False
    is_cancelled: bool = False
    waited_s: float = 0.0
    """For an engine, before one had it."""
    num_losses: int = 0
    """Engines that were lost while they had it."""


class Replica:
    """An engine process with its sequences; a restart is a new Replica. Times are of one monotonic clock. Not thread-safe."""

    def __init__(self, number: int, process: EngineProcess, place: Placement, now_s: float) -> None:
        self.number = number
        self.process = process
        self.place = place
        self.started_s = now_s
        self.progress_s = now_s
        """When it last got on, or had nothing to do."""
        self.sequences: dict[str, LiveSequence] = {}
        self.stats = EngineStats()
        self.limits: EngineLimits | None = None
        """None until its engine has loaded."""

    @property
    def is_ready(self) -> bool:
        """Whether its engine has loaded."""
        return self.limits is not None

    def welcome(self, limits: EngineLimits) -> None:
        """Note that its engine has loaded."""
        self.limits = limits
        self._admission = Admission(limits)

    def check_room(self) -> None:
        """Raise Overloaded if the engine, which must be ready, takes no further sequence."""
        self._admission.check_room()

    def start(self, sequence: LiveSequence, order: Add, now_s: float) -> None:
        """Hand a sequence to the engine, which must be ready; raise Overloaded if it has no room."""
        self._admission.admit(sequence.id, len(order.prompt_token_ids))
        if not self.sequences:
            self.progress_s = now_s
        self.sequences[sequence.id] = sequence
        sequence.replica = self
        sequence.waited_s = now_s - sequence.admitted_s
        self.process.send(order)

    def cancel(self, sequence_id: str) -> None:
        """Ask the engine to end a sequence."""
        self.process.send(Cancel(sequence_id))

    def take(self, event: Event, now_s: float) -> None:
        """Note what the engine says of one of its sequences."""
        self._admission.note(event)
        self.progress_s = now_s
        self.sequences[event.sequence_id].has_started = True
        if event.finish_reason is not None:
            del self.sequences[event.sequence_id]

    def take_report(self, stats: EngineStats, now_s: float) -> None:
        """Note how the engine is doing."""
        if stats.steps != self.stats.steps:
            self.progress_s = now_s
        self.stats = stats
