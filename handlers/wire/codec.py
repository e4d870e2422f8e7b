"""The codec protocol: how one route's bodies become requests, and finished or streaming requests become bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import Any, Protocol

from handlers.errors import RequestError
from handlers.frontend import Incoming
from handlers.requests import OutputToken, Request


class ChoiceStream(Protocol):
    """Writes the events of one streamed choice. It knows what was sent before, so it belongs to one choice."""

    def piece(self, text: str, tokens: Sequence[OutputToken]) -> bytes:
        """Return the event (server-sent event, UTF-8) that carries a new piece of text, and its tokens if they were asked for."""
        ...

    def end(self) -> bytes:
        """Return the event with the finish reason."""
        ...


class Codec(Protocol):
    """One route of the API; stateless, so one instance serves every request."""

    def decode(self, incoming: Incoming) -> list[Request]:
        """Return the validated request, one for each prompt, or raise RequestError with the offending parameter's name.

        The caller sets what is not in the body: ``id``, ``route`` and ``headers``.
        """
        ...

    def answer(self, choices: Sequence[Request]) -> bytes:
        """Return the whole answer to a finished request, of the media type ``content_type``."""
        ...

    def stream(self, choice: Request) -> ChoiceStream:
        """Return the writer of a choice's events."""
        ...

    def end(self, choices: Sequence[Request]) -> bytes:
        """Return the events that follow when all choices have ended: usage, end marker."""
        ...


def event(data: Any) -> bytes:
    """Return one server-sent event (https://html.spec.whatwg.org/multipage/server-sent-events.html) with a JSON payload."""
    return b"data: " + to_json(data) + b"\n\n"


def error_event(error: RequestError) -> bytes:
    """Return the event that ends a stream with an error; the ``openai`` client raises it as ``APIError``."""
    return event(error.body())


def to_json(data: Any) -> bytes:
    """Return compact JSON in UTF-8, half a surrogate pair as "?"; raise ValueError or TypeError for what JSON cannot say (NaN, a set)."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "replace")


HOLE = "\ufdd0"
"""Where the string of an `EventTemplate` goes: a noncharacter (Unicode 23.7), so nothing that stands after it is taken for it."""


class EventTemplate:
    """An event of which one string varies: everything around it is written once. ``data`` has ``HOLE`` in its place."""

    def __init__(self, data: Any) -> None:
        self._head, self._tail = event(data).rsplit(to_json(HOLE), 1)

    def fill(self, text: str) -> bytes:
        """Return the event with ``text``."""
        return self._head + encode_basestring(text).encode("utf-8", "replace") + self._tail
