"""One client's request and the answer to it: its choices, what has been sent of them, and what is to be sent next."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from handlers.errors import Failed, InvalidRequest, NotFound, RequestError
from handlers.frontend import EVENT_STREAM, Incoming, Reply
from handlers.requests import Request
from handlers.time_ledger import TimeLedger
from handlers.wire.codec import ChoiceStream, Codec, error_event, to_json
from handlers.wire.routing import route_of

logger = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Exchange:
    """The requests that stand for one client's (one a prompt, then one a choice) and the codec of its route. Not thread-safe.

    ``codec`` is None if the body could not be read. No method raises: what cannot be encoded (an author's ``request.fields``, say) becomes
    the request's error, a 500. One choice that fails fails the whole.
    """

    requests: list[Request]
    codec: Codec | None
    last_sent_s: float = 0.0
    has_news: bool = False
    """Whether text waits to be sent."""
    _streams: list[_Stream] = field(default_factory=list)

    @property
    def error(self) -> RequestError | None:
        """What has gone wrong, if anything."""
        return next((request.error for request in self.requests if request.error is not None), None)

    @property
    def is_open(self) -> bool:
        """Whether a message has gone out, and with it the status."""
        return self.last_sent_s != 0.0

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be generated: a choice has failed, or all have ended."""
        unfinished = sum(request.finish_reason is None for request in self.requests)
        return not unfinished or self.error is not None

    def split(self) -> None:
        """Make one request of each choice, now that the prompts are rendered, and let each write to the stream, if there is one."""
        rendered, self.requests = self.requests, []
        for request in rendered:
            self.requests += request.choices()
        if self.requests[0].stream:
            self._streams = [_Stream(self, request) for request in self.requests]

    def complete(self) -> Reply:
        """Return the whole answer as one response with its status; a streamed answer comes as all its events at once."""
        body, error = self._settle()
        if error is not None:
            return Reply(to_json(error.body()), status=error.status, headers=error.headers)
        last = min(self.requests, key=lambda request: request.times.parts["send"])
        return Reply(body, content_type=self._content_type, headers={"Server-Timing": last.times.server_timing()})

    def open(self) -> Reply:
        """Return the first message of an answer in several: status and headers, and not one byte of the body."""
        self.last_sent_s = time.monotonic()
        return Reply(more=True, content_type=self._content_type)

    def flush(self) -> Reply:
        """Return the queued text as events, or an empty message that only asks whether the client is still there."""
        self.last_sent_s = time.monotonic()
        self.has_news = False
        return Reply(self._encode(self._news), more=True, content_type=self._content_type)

    def end(self) -> Reply:
        """Return the last message of an answer in several. The status has gone out long ago, so an error goes into the body."""
        body, error = self._settle()
        if error is not None:
            body = error_event(error) if self.requests[0].stream else to_json(error.body())
        return Reply(body, more=False, content_type=self._content_type)

    def finish(self) -> Reply:
        """Return the last message, or the only one."""
        return self.end() if self.is_open else self.complete()

    @property
    def _content_type(self) -> str:
        request = self.requests[0]
        return EVENT_STREAM if request.stream else request.content_type

    def _settle(self) -> tuple[bytes, RequestError | None]:
        """Return what is left of the answer, or what has gone wrong; from here on nothing takes time."""
        body = self._encode(self._rest)
        error = self._fail_all()
        for request in self.requests:
            request.times.book("send")
        return body, error

    def _encode(self, part: Callable[[Codec], bytes]) -> bytes:
        """Return ``part`` of the answer; nothing if the request has failed, or fails now."""
        if self.codec is None or self.error is not None:
            return b""
        try:
            return part(self.codec)
        except Exception:
            logger.exception("the answer to a request could not be encoded")
            self.requests[0].error = Failed()
            return b""

    def _fail_all(self) -> RequestError | None:
        """Let the first choice's error be that of all."""
        error = self.error
        for request in self.requests:
            request.error = request.error or error
        return error

    def _news(self, codec: Codec) -> bytes:
        return b"".join([stream.news(codec) for stream in self._streams])

    def _rest(self, codec: Codec) -> bytes:
        return self._news(codec) + codec.end(self.requests) if self.requests[0].stream else codec.answer(self.requests)


class _Stream:
    """One streamed choice: its text that waits to be sent. It is the request's ``sink``."""

    __slots__ = ("_exchange", "_has_ended", "_num_sent_tokens", "_request", "_text", "_writer")

    def __init__(self, exchange: Exchange, request: Request) -> None:
        self._exchange = exchange
        self._request = request
        self._writer: ChoiceStream | None = None
        self._text = request.text  # An author's preprocess may have answered.
        self._num_sent_tokens = 0
        self._has_ended = False
        request.sink = self._write

    def _write(self, text: str) -> None:
        self._text += text
        self._exchange.has_news = True

    def news(self, codec: Codec) -> bytes:
        """Return the events for what has come since the last time, and the end of the choice once it has finished."""
        is_ending = self._request.finish_reason is not None and not self._has_ended
        if not self._text and not is_ending:
            return b""
        self._writer = self._writer or codec.stream(self._request)
        events = self._piece(self._writer)
        if is_ending:
            self._has_ended = True
            events += self._writer.end()
        return events

    def _piece(self, writer: ChoiceStream) -> bytes:
        text, tokens = self._text, self._request.tokens[self._num_sent_tokens :]
        self._text = ""
        self._num_sent_tokens += len(tokens)
        return writer.piece(text, tokens) if text or tokens else b""


def open_exchange(incoming: Incoming, routes: Mapping[str, Codec], *, can_stream: bool) -> Exchange:
    """Decode a new request; whatever is wrong with it becomes its error."""
    times, route = TimeLedger(), route_of(incoming, routes)
    codec = routes.get(route)
    requests = _decode(incoming, codec, routes)
    for number, request in enumerate(requests):
        request.id, request.route, request.headers = incoming.id, route, dict(incoming.headers)
        request.index = number * request.n
        request.times = times.copy()
        if request.stream and not can_stream:
            request.error = InvalidRequest("this model does not stream; leave 'stream' out", param="stream", code="unsupported_parameter")
    return Exchange(requests, codec)


def _decode(incoming: Incoming, codec: Codec | None, routes: Mapping[str, Codec]) -> list[Request]:
    try:
        if codec is None:
            raise NotFound(f"no route {incoming.route!r} here; there are: {', '.join(sorted(filter(None, routes)))}", code="unknown_route")
        return codec.decode(incoming)
    except RequestError as error:
        return [Request(error=error)]
    except Exception:
        logger.exception("the codec of route %r failed", incoming.route)
        return [Request(error=Failed())]
