"""What a worker and its engine processes tell each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from typing import Any

from handlers.engine.admission import EngineLimits
from handlers.engine.client import EngineStats, Event, Start
from handlers.engine.process.frames import FrameReader, Plain, Row, encode_frame
from handlers.requests import SamplingParams, TokenLogprob


@dataclass(frozen=True, slots=True)
class Load(Plain):
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
class Cancel(Plain):
    """To the engine: end this sequence."""

    sequence_id: str


@dataclass(frozen=True, slots=True)
class Watch(Plain):
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
class LoadFailed(Plain):
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


def encode(message: Message) -> bytes:
    """Return the frame of one message."""
    return encode_frame(message, _KINDS)


def message_reader() -> FrameReader[Message]:
    """Return what cuts the stream of one side into messages."""
    return FrameReader(_KINDS)


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
