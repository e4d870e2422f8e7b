"""One request and its answer: what has been sent of it, and what is to be sent next."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from handlers.errors import InvalidRequest, NotFound, RequestError
from handlers.frontend import EVENT_STREAM, JSON, Incoming, Reply
from handlers.requests import Request
from handlers.wire.codec import Codec, error_event, to_json


@dataclass(eq=False, slots=True)
class Exchange:
    """A request, the codec of its route (None if it could not be read), and streamed text that waits to be sent. Not thread-safe."""

    request: Request
    codec: Codec | None
    pending: str = ""
    last_sent_s: float = 0.0

    def write(self, text: str) -> None:
        """Queue streamed text."""
        self.pending += text

    def complete(self) -> Reply:
        """Return the whole answer as one response with its status; a streamed answer comes as all its events at once."""
        request = self.request
        if request.error is not None:
            return error_reply(request.error)
        assert self.codec is not None  # Without a codec there is an error.
        return Reply(self._last_frames(), content_type=EVENT_STREAM) if request.stream else self.codec.answer(request)

    def open(self) -> Reply:
        """Return the first message of an answer in several: status and headers, and not one byte of the body."""
        self.last_sent_s = time.monotonic()
        return Reply(more=True, content_type=EVENT_STREAM if self.request.stream else JSON)

    def flush(self) -> Reply:
        """Return the queued text as an event, or an empty message that only asks whether the client is still there."""
        self.last_sent_s = time.monotonic()
        return Reply(self._take_pending(), more=True, content_type=EVENT_STREAM if self.request.stream else JSON)

    def end(self) -> Reply:
        """Return the last message of an answer in several. The status has gone out long ago, so an error goes into the body."""
        request = self.request
        if request.error is not None:
            return Reply(error_event(request.error) if request.stream else to_json(request.error.body()), more=False)
        assert self.codec is not None
        return Reply(self._last_frames() if request.stream else self.codec.answer(request).body, more=False)

    def _last_frames(self) -> bytes:
        assert self.codec is not None
        return self._take_pending() + self.codec.last_frames(self.request)

    def _take_pending(self) -> bytes:
        if not self.pending or self.codec is None:
            return b""
        frame = self.codec.frame(self.request, self.pending)
        self.request.num_sent_chars += len(self.pending)
        self.pending = ""
        return frame


def open_exchange(incoming: Incoming, routes: Mapping[str, Codec], *, can_stream: bool) -> Exchange:
    """Decode a new request; whatever is wrong with it becomes its error."""
    codec = routes.get(incoming.route)
    try:
        if codec is None:
            raise NotFound(f"no route {incoming.route!r} here; there are: {', '.join(sorted(filter(None, routes)))}", code="unknown_route")
        exchange = Exchange(codec.decode(incoming), codec)
    except RequestError as error:
        return Exchange(Request(id=incoming.id, error=error), codec)
    request = exchange.request
    if request.stream and not can_stream:
        request.error = InvalidRequest("this model does not stream; leave 'stream' out", param="stream", code="unsupported_parameter")
    request.sink = exchange.write if request.stream else None
    return exchange


def error_reply(error: RequestError) -> Reply:
    """Return an error object as a complete response with its status and headers."""
    return Reply(to_json(error.body()), status=error.status, headers=error.headers)
