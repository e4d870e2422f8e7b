"""What a worker and its engine processes tell each other, as frames on a stream socket.

A frame is a head of three little-endian numbers (the kind of message, the bytes of JSON, the bytes of token ids), a JSON array and an array
of int32. Token ids, nearly all there is to say, travel in the second; what is rare or has a name travels in the first. (``json`` is written
in C: for the events of a step it is several times as fast as packing fields one by one in Python.)
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any, Self

from handlers.engine.admission import EngineLimits
from handlers.engine.client import EngineStats, Event, Start
from handlers.requests import SamplingParams, TokenLogprob

Row = Sequence[Any]
"""The JSON part of a message."""

_HEAD = struct.Struct("<BII")


class _Plain:
    """A message whose fields are JSON values, and no token ids."""

    __slots__ = ()

    def pack(self) -> tuple[Row, Sequence[int]]:
        """Return what travels as JSON, and what as int32."""
        return [getattr(self, name) for name in self.__match_args__], ()  # type: ignore[attr-defined]

    @classmethod
    def unpack(cls, row: Row, token_ids: list[int]) -> Self:
        """Return the message of which ``pack`` gave these."""
        return cls(*row)


@dataclass(frozen=True, slots=True)
class Load(_Plain):
    """To the engine, first of all: the ``EngineSource`` that builds it, as plain data."""

    source: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Add:
    """To the engine: the arguments of ``EngineClient.add``."""

    sequence_id: str
    prompt_token_ids: Sequence[int]
    params: SamplingParams
    priority: int = 0
    max_queue_s: float | None = None

    def pack(self) -> tuple[Row, Sequence[int]]:
        return (self.sequence_id, _changed(self.params), self.priority, self.max_queue_s), self.prompt_token_ids

    @classmethod
    def unpack(cls, row: Row, token_ids: list[int]) -> Add:
        sequence_id, params, priority, max_queue_s = row
        changed = {name: _tupled(value) for name, value in params.items()}
        return cls(sequence_id, token_ids, SamplingParams(**changed), priority, max_queue_s)


@dataclass(frozen=True, slots=True)
class Cancel(_Plain):
    """To the engine: end this sequence."""

    sequence_id: str


@dataclass(frozen=True, slots=True)
class Watch(_Plain):
    """To the engine: somebody waits for news. As any other message, it keeps the engine working for a moment."""


@dataclass(frozen=True, slots=True)
class Hello:
    """To the worker: the engine is ready."""

    limits: EngineLimits

    def pack(self) -> tuple[Row, Sequence[int]]:
        return astuple(self.limits), ()

    @classmethod
    def unpack(cls, row: Row, token_ids: list[int]) -> Hello:
        return cls(EngineLimits(*row))


@dataclass(frozen=True, slots=True)
class LoadFailed(_Plain):
    """To the worker: there will be no engine, and why; ``is_config`` if the operator or the author can do something about it."""

    message: str
    is_config: bool


@dataclass(frozen=True, slots=True)
class Events:
    """To the worker: what ``EngineClient.poll`` returned."""

    events: tuple[Event, ...]

    def pack(self) -> tuple[Row, Sequence[int]]:
        return [_event_row(event) for event in self.events], [token_id for event in self.events for token_id in event.token_ids]

    @classmethod
    def unpack(cls, row: Row, token_ids: list[int]) -> Events:
        return cls(tuple(_events(row, token_ids)))


@dataclass(frozen=True, slots=True)
class Report:
    """To the worker, a few times a second while there is work: how the engine is doing."""

    stats: EngineStats

    def pack(self) -> tuple[Row, Sequence[int]]:
        return (asdict(self.stats),), ()

    @classmethod
    def unpack(cls, row: Row, token_ids: list[int]) -> Report:
        return cls(EngineStats(**row[0]))


Message = Load | Add | Cancel | Watch | Hello | LoadFailed | Events | Report
_KINDS: tuple[type[Message], ...] = (Load, Add, Cancel, Watch, Hello, LoadFailed, Events, Report)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}


def encode(message: Message) -> bytes:
    """Return the frame of one message."""
    row, token_ids = message.pack()
    text = json.dumps(row, separators=(",", ":")).encode()
    ids = array("i", token_ids).tobytes()
    return _HEAD.pack(_NUMBERS[type(message)], len(text), len(ids)) + text + ids


class FrameReader:
    """Cut a byte stream into messages, however it is torn. Not thread-safe."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages that are complete with ``data``."""
        self._buffer += data
        messages: list[Message] = []
        position = 0
        while len(self._buffer) >= position + _HEAD.size:
            number, text_bytes, ids_bytes = _HEAD.unpack_from(self._buffer, position)
            text_at = position + _HEAD.size
            ids_at, end = text_at + text_bytes, text_at + text_bytes + ids_bytes
            if len(self._buffer) < end:
                break
            position = end
            token_ids = array("i", bytes(self._buffer[ids_at:end])).tolist()
            messages.append(_KINDS[number].unpack(json.loads(self._buffer[text_at:ids_at]), token_ids))
        del self._buffer[:position]
        return messages


def _changed(params: SamplingParams) -> dict[str, Any]:
    """Return the parameters that are not the default."""
    values = ((field.name, getattr(params, field.name), field.default) for field in fields(params))
    return {name: value for name, value, default in values if value != default}


def _tupled(value: Any) -> Any:
    return tuple(map(_tupled, value)) if isinstance(value, list) else value


def _event_row(event: Event) -> Row:
    """Return (id, number of tokens), and what else there is to say, which mostly is nothing."""
    if not (event.finish_reason or event.num_stop_tokens or event.error is not None or event.logprobs or event.start):
        return event.sequence_id, len(event.token_ids)
    logprobs = [(entry.token_id, entry.logprob, entry.top) for entry in event.logprobs]
    start = event.start and astuple(event.start)
    return event.sequence_id, len(event.token_ids), event.finish_reason, event.num_stop_tokens, event.error, logprobs, start


def _events(rows: Row, token_ids: list[int]) -> Iterator[Event]:
    position = 0
    for sequence_id, num_tokens, *rest in rows:
        end = position + num_tokens
        yield Event(sequence_id, tuple(token_ids[position:end]), *(_rest_of_event(*rest) if rest else ()))
        position = end


def _rest_of_event(finish_reason: Any, num_stop_tokens: int, error: str | None, logprobs: Row, start: Row | None) -> tuple[Any, ...]:
    entries = tuple(TokenLogprob(token_id, logprob, _tupled(top)) for token_id, logprob, top in logprobs)
    return finish_reason, num_stop_tokens, error, entries, start and Start(*start)
