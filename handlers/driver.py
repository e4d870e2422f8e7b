"""Drive an engine from TorchServe's continuous batching: who came, who left, and what is new for whom, in one short step.

The rules come from the frontend's protocol (TorchServe 0.12, ``ContinuousBatching.java``). In each call the frontend lists every live
request and waits for the answer, so a step never waits for the engine longer than ``poll_s``. Only a message with more to follow makes the
frontend look whether the client is still there, so a request without news gets an empty one every ``heartbeat_s``; a client that left is
missing from the next call. A stream needs two messages, so the first one is always empty: it carries the status, and the payload is not
sent again after it. An answer that comes whole is held back before that message for a while: if it is finished by then, it is one complete
response, with the status that it deserves and a ``Server-Timing`` header; meanwhile the payload comes again with every call, and nobody
notices if its client leaves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from handlers.config import check_seconds
from handlers.engine.client import EngineClient, Event
from handlers.errors import Unavailable
from handlers.exchange import Exchange, open_exchange
from handlers.frontend import Incoming, Reply
from handlers.hooks import HandlerHooks
from handlers.live import LiveChoice, LiveRequest
from handlers.requests import Request
from handlers.stages import run_observer, run_stage
from handlers.text.output import TextOutput

logger = logging.getLogger(__name__)

_ENGINE_LOST = "the engine does not answer; send this request again"
_LAST_WORDS_S = 2.0
"""How long it may take at least to hand over what the engine has said at its end."""
_MAX_HELD_BYTES = 16 * 1024
_MAX_ALL_HELD_BYTES = 1024 * 1024
"""Of a request's body, and of all, that may come again with every call."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often things are sent, in seconds. ``message_s``: how far apart the messages of all requests are to be on average, at least.
    ``hold_s``: for how long an answer that comes whole has no first message.

    A message costs the frontend and the client about 0.3 ms of a core, so that many streams get fewer and longer ones.
    """

    flush_s: float = 0.01
    message_s: float = 0.0005
    heartbeat_s: float = 0.2
    poll_s: float = 0.015
    hold_s: float = 0.0


class ContinuousDriver:
    """Answer the frontend's calls from an engine's events. Sans I/O; runs in the thread that calls ``step``, which never raises."""

    def __init__(
        self,
        handler: HandlerHooks,
        engine: EngineClient,
        new_output: Callable[[Request], TextOutput],
        cadence: Cadence = Cadence(),
    ) -> None:
        self._handler = handler
        self._routes = handler.routes()
        self._can_stream = handler.has_capability("streaming")
        self._engine = engine
        self._new_output = new_output
        self._cadence = cadence
        self._live: dict[str, LiveRequest] = {}
        self._choices: dict[str, LiveChoice] = {}

    def drain(self, timeout_s: float = 60.0) -> bool:
        """Refuse new requests, and wait until the live ones are answered; those that are not after ``timeout_s`` end with an error.

        Return whether all were answered in full. For another thread than the one that calls ``step``, which must go on being called.
        """
        done_by_s = time.monotonic() + check_seconds(timeout_s)
        is_done = self._engine.drain(timeout_s)
        if not is_done:
            self._engine.close()
        told_by_s = max(done_by_s, time.monotonic() + _LAST_WORDS_S)
        while self._live and time.monotonic() < told_by_s:
            time.sleep(_LAST_WORDS_S / 100)
        return is_done and not self._live

    def step(self, batch: Sequence[Incoming]) -> list[Reply | None]:
        """Return a reply for each request in ``batch``, in its order; None where there is nothing to say yet."""
        self._cancel_vanished({incoming.id for incoming in batch})
        admitted = {incoming.id: self._admit(incoming) for incoming in batch if incoming.id not in self._live}
        self._collect(0.0 if admitted else self._cadence.poll_s)
        now_s = time.monotonic()
        return [admitted.get(incoming.id) or self._next_reply(incoming.id, now_s) for incoming in batch]

    def _cancel_vanished(self, present: set[str]) -> None:
        vanished = self._live.keys() - present
        if vanished:
            self._collect(0.0)  # What was generated for them since the last call counts, too.
        for request_id in vanished:
            live = self._live[request_id]
            requests = live.exchange.requests
            for request in requests:
                request.finish_reason = "cancelled"
            requests[0].num_wasted_tokens = live.num_tokens - live.num_confirmed_tokens
            self._close(request_id, live)

    def _admit(self, incoming: Incoming) -> Reply | None:
        if _is_handed_over(incoming):
            lost = Request(id=incoming.id, stream=True, error=Unavailable("the worker restarted and lost this request; send it again"))
            return self._register(Exchange([lost], codec=None)).exchange.open()
        exchange = open_exchange(incoming, self._routes, can_stream=self._can_stream)
        if not exchange.is_finished:
            self._start(exchange)
        if exchange.is_finished:
            reply = exchange.complete()
            for request in exchange.requests:
                run_observer(self._handler.record, request)
            return reply
        live = self._register(exchange)
        if exchange.requests[0].stream or not self._can_hold(incoming):
            return exchange.open()
        live.num_held_bytes = len(incoming.body or b"")
        live.held_until_s = time.monotonic() + self._cadence.hold_s
        return None

    def _can_hold(self, incoming: Incoming) -> bool:
        num_bytes = len(incoming.body or b"")
        held = sum([live.num_held_bytes for live in self._live.values() if not live.exchange.is_open])
        return self._cadence.hold_s > 0 and num_bytes <= _MAX_HELD_BYTES and held + num_bytes <= _MAX_ALL_HELD_BYTES

    def _start(self, exchange: Exchange) -> None:
        for stage in (self._handler.preprocess, self._handler.render):
            for request in exchange.requests:
                if not request.is_finished:
                    run_stage(stage, [request])
        if exchange.error is not None:
            return
        exchange.split()
        run_stage(self._handler.inference, [request for request in exchange.requests if not request.is_finished])
        for request in exchange.requests:
            request.times.book("tokenize")
            if exchange.error is not None:
                self._engine.cancel(request.sequence_id)  # Those that came before the one that was refused.
            elif request.finish_reason is not None:  # An author's preprocess has answered, without the model.
                run_stage(self._handler.postprocess, [request])

    def _register(self, exchange: Exchange) -> LiveRequest:
        live = LiveRequest(exchange, is_finished=exchange.is_finished)
        for request in exchange.requests:
            choice = LiveChoice(live, request, self._new_output(request), is_running=not request.is_finished)
            live.choices.append(choice)
            self._choices[request.sequence_id] = choice
        self._live[exchange.requests[0].id] = live
        return live

    def _collect(self, patience_s: float) -> None:
        """Take in events until something is due to be sent, or patience is over: every answer to the frontend costs it a round trip."""
        now_s = time.monotonic()
        due_s = min([now_s + patience_s, *[self._due_s(live) for live in self._live.values()]])
        while True:
            wait_s = due_s - now_s
            for event in self._poll(max(wait_s, 0.0)):
                live = self._take(event)
                if live is not None:
                    due_s = min(due_s, self._due_s(live))
            if wait_s <= 0.0:
                return
            now_s = time.monotonic()

    def _due_s(self, live: LiveRequest) -> float:
        """Return when the next message is due, on the monotonic clock: the first text and the end at once."""
        if live.is_finished:
            return 0.0
        if not live.exchange.is_open:
            return live.held_until_s
        if live.exchange.has_news and not live.num_sent_tokens:
            return 0.0
        if not live.exchange.has_news:
            return live.exchange.last_sent_s + self._cadence.heartbeat_s
        return live.exchange.last_sent_s + max(self._cadence.flush_s, self._cadence.message_s * len(self._live))

    def _poll(self, timeout_s: float) -> list[Event]:
        try:
            return self._engine.poll(timeout_s)
        except Exception:
            logger.exception("the engine cannot be asked for news: failing all requests that it works on")
            return [Event(sequence_id, finish_reason="error", error=_ENGINE_LOST) for sequence_id in self._choices]

    def _take(self, event: Event) -> LiveRequest | None:
        """Take in an event and return the request that it is about, if it is of interest."""
        choice = self._choices.get(event.sequence_id)
        if choice is None or choice.request.is_finished:
            return None  # Cancelled, or stopped by a stop string: what the engine still had in hand.
        choice.take(event, self._handler)
        if choice.request.is_finished:
            self._stop(choice)
        return choice.live

    def _stop(self, choice: LiveChoice) -> None:
        if choice.is_running:
            choice.is_running = False
            self._engine.cancel(choice.request.sequence_id)

    def _next_reply(self, request_id: str, now_s: float) -> Reply | None:
        live = self._live[request_id]
        if live.is_finished:
            reply = live.exchange.finish()
            self._close(request_id, live)
            return reply
        if self._due_s(live) > now_s:
            return None
        if not live.exchange.is_open:
            return live.exchange.open()
        live.note_sent()
        reply = live.exchange.flush()
        live.is_finished = live.exchange.error is not None  # What an author has made of the text may be impossible to encode.
        return reply

    def _close(self, request_id: str, live: LiveRequest) -> None:
        """Forget a request whose fate is known, whatever the engine still does for it."""
        del self._live[request_id]
        for choice in live.choices:
            self._stop(choice)
            del self._choices[choice.request.sequence_id]
            run_observer(self._handler.record, choice.request)


def _is_handed_over(incoming: Incoming) -> bool:
    """Whether the payload of this request, new to us, went to a worker that is dead now. (The payload of a form never comes at all.)"""
    is_form = incoming.content_type.lower().startswith(("application/x-www-form-urlencoded", "multipart/"))
    return incoming.body is None and not is_form and incoming.headers.get("content-length", "0") != "0"
