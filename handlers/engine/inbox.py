"""What has happened and has not been asked for yet, at most one event a sequence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from handlers.engine.client import Event


class Inbox:
    """Events in the order in which their sequences were first heard of. Not thread-safe."""

    def __init__(self) -> None:
        self._events: dict[str, Event] = {}

    def __contains__(self, sequence_id: str) -> bool:
        return sequence_id in self._events

    def __len__(self) -> int:
        return len(self._events)

    def __iter__(self) -> Iterator[Event]:
        return iter(self._events.values())

    def put(self, event: Event) -> None:
        """Add an event, joined with what is there of its sequence."""
        earlier = self._events.get(event.sequence_id)
        self._events[event.sequence_id] = _joined(earlier, event) if earlier else event

    def take_all(self) -> list[Event]:
        """Remove and return every event."""
        events, self._events = self._events, {}
        return list(events.values())


def _joined(earlier: Event, later: Event) -> Event:
    return replace(
        later,
        token_ids=earlier.token_ids + later.token_ids,
        logprobs=earlier.logprobs + later.logprobs,
        start=earlier.start or later.start,
    )
