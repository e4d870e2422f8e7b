"""The codec protocol: how one route's bodies become requests, and finished or streaming requests become bytes."""

from __future__ import annotations

import json
from typing import Any, Protocol

from handlers.errors import RequestError
from handlers.frontend import Incoming
from handlers.requests import Request


class Codec(Protocol):
    """One route of the API; stateless, so one instance serves every request."""

    def decode(self, incoming: Incoming) -> Request:
        """Return the validated request, or raise RequestError with the offending parameter's name.

        The caller sets what is not in the body: ``id``, ``route`` and ``headers``.
        """
        ...

    def answer(self, request: Request) -> bytes:
        """Return the whole answer to a finished request, of the media type ``request.content_type``."""
        ...

    def frame(self, request: Request, text: str) -> bytes:
        """Return the event (server-sent event, UTF-8) that carries a new piece of a streamed request's text."""
        ...

    def last_frames(self, request: Request) -> bytes:
        """Return the events that end a finished stream: finish reason, usage, end marker."""
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
