"""One request and its answer: what has been sent of it, and what is to be sent next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from handlers.errors import Failed, InvalidRequest, NotFound, RequestError
from handlers.frontend import EVENT_STREAM, Incoming, Reply
from handlers.requests import Request
from handlers.wire.codec import Codec, error_event, to_json

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Exchange:
    """A request, the codec of its route (None if it could not be read), and streamed text that waits to be sent. Not thread-safe.

    No method raises: what cannot be encoded (an author's ``request.fields``, say) becomes the request's error, a 500.
    """

    request: Request
    codec: Codec | None
    pending: str = ""
    last_sent_s: float = 0.0

    def write(self, text: str) -> None:
        """Queue streamed text."""
        self.pending += text

    def complete(self) -> Reply:
        """Return the whole answer as one response with its status; a streamed answer comes as all its events at once."""
        body = self._encode(self._rest)
        error = self.request.error
        if error is not None:
            return Reply(to_json(error.body()), status=error.status, headers=error.headers)
        return Reply(body, content_type=self._content_type)

    def open(self) -> Reply:
        """Return the first message of an answer in several: status and headers, and not one byte of the body."""
        self.last_sent_s = time.monotonic()
        return Reply(more=True, content_type=self._content_type)

    def flush(self) -> Reply:
        """Return the queued text as an event, or an empty message that only asks whether the client is still there."""
        self.last_sent_s = time.monotonic()
        return Reply(self._encode(self._take_pending), more=True, content_type=self._content_type)

    def end(self) -> Reply:
        """Return the last message of an answer in several. The status has gone out long ago, so an error goes into the body."""
        body = self._encode(self._rest)
        error = self.request.error
        if error is not None:
            body = error_event(error) if self.request.stream else to_json(error.body())
        return Reply(body, more=False, content_type=self._content_type)

    @property
    def _content_type(self) -> str:
        return EVENT_STREAM if self.request.stream else self.request.content_type

    def _encode(self, part: Callable[[Codec], bytes]) -> bytes:
        """Return ``part`` of the answer; nothing if the request has failed, or fails now."""
        if self.request.error is not None or self.codec is None:
            return b""
        try:
            return part(self.codec)
        except Exception:
            logger.exception("the answer to a request could not be encoded")
            self.request.error = Failed()
            return b""

    def _rest(self, codec: Codec) -> bytes:
        return self._take_pending(codec) + codec.last_frames(self.request) if self.request.stream else codec.answer(self.request)

    def _take_pending(self, codec: Codec) -> bytes:
        if not self.pending:
            return b""
        frame = codec.frame(self.request, self.pending)
        self.request.num_sent_chars += len(self.pending)
        self.pending = ""
        return frame


def open_exchange(incoming: Incoming, routes: Mapping[str, Codec], *, can_stream: bool) -> Exchange:
    """Decode a new request; whatever is wrong with it becomes its error."""
    codec = routes.get(incoming.route)
    request = _decode(incoming, codec, routes)
    request.id, request.route, request.headers = incoming.id, incoming.route, dict(incoming.headers)
    if request.stream and not can_stream:
        request.error = InvalidRequest("this model does not stream; leave 'stream' out", param="stream", code="unsupported_parameter")
    exchange = Exchange(request, codec)
    request.sink = exchange.write if request.stream else None
    return exchange


def _decode(incoming: Incoming, codec: Codec | None, routes: Mapping[str, Codec]) -> Request:
    try:
        if codec is None:
            raise NotFound(f"no route {incoming.route!r} here; there are: {', '.join(sorted(filter(None, routes)))}", code="unknown_route")
        return codec.decode(incoming)
    except RequestError as error:
        return Request(error=error)
    except Exception:
        logger.exception("the codec of route %r failed", incoming.route)
        return Request(error=Failed())
