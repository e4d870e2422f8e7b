"""Drive an engine from TorchServe's continuous batching: who came, who left, and what is new for whom, in one short step.

The rules come from the frontend's protocol (TorchServe 0.12, ``ContinuousBatching.java``). In each call the frontend lists every live
request and waits for the answer, so a step never waits for the engine longer than ``poll_s``. Only a message with more to follow makes the
frontend look whether the client is still there, so a request without news gets an empty one every ``heartbeat_s``; a client that left is
missing from the next call. A stream needs two messages, so the first one is always empty: it carries the status, and the payload is not
sent again after it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from handlers.engine.client import EngineClient, Event
from handlers.errors import Failed, Unavailable
from handlers.exchange import Exchange, open_exchange
from handlers.frontend import Incoming, Reply
from handlers.hooks import HandlerHooks
from handlers.requests import Delta, FinishReason, Request
from handlers.stages import run_observer, run_stage
from handlers.text.output import TextOutput

logger = logging.getLogger(__name__)

_ENGINE_LOST = "the engine does not answer; send this request again"


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often things are sent, in seconds."""

    flush_s: float = 0.01
    heartbeat_s: float = 0.2
    poll_s: float = 0.015


@dataclass(eq=False, slots=True)
class _Live:
    """A request that the engine is working on."""

    exchange: Exchange
    output: TextOutput
    is_running: bool = True
    """Whether the engine may still generate for it."""
    num_sent_tokens: int = 0
    num_confirmed_tokens: int = 0
    """Tokens generated when the client was last known to be there: a message only shows that the one before it was not the last."""

    @property
    def request(self) -> Request:
        return self.exchange.request


class ContinuousDriver:
    """Answer the frontend's calls from an engine's events. Sans I/O; runs in the thread that calls ``step``, which never raises."""

    def __init__(
        self, handler: HandlerHooks, engine: EngineClient, new_output: Callable[[Request], TextOutput], cadence: Cadence = Cadence()
    ) -> None:
        self._handler = handler
        self._routes = handler.routes()
        self._can_stream = handler.has_capability("streaming")
        self._engine = engine
        self._new_output = new_output
        self._cadence = cadence
        self._live: dict[str, _Live] = {}

    def step(self, batch: Sequence[Incoming]) -> list[Reply | None]:
        """Return a reply for each request in ``batch``, in its order; None where there is nothing to say yet."""
        self._cancel_vanished({incoming.id for incoming in batch})
        admitted = {incoming.id: self._admit(incoming) for incoming in batch if incoming.id not in self._live}
        self._collect(0.0 if admitted else self._cadence.poll_s)
        return [admitted.get(incoming.id) or self._next_reply(incoming.id) for incoming in batch]

    def _cancel_vanished(self, present: set[str]) -> None:
        vanished = self._live.keys() - present
        if vanished:
            self._collect(0.0)  # What was generated for them since the last call counts, too.
        for request_id in vanished:
            live = self._live.pop(request_id)
            self._engine.cancel(request_id)
            live.request.finish_reason = "cancelled"
            live.request.num_wasted_tokens = live.output.num_tokens - live.num_confirmed_tokens
            run_observer(self._handler.record, live.request)

    def _admit(self, incoming: Incoming) -> Reply:
        if _is_handed_over(incoming):
            lost = Request(id=incoming.id, stream=True, error=Unavailable("the worker restarted and lost this request; send it again"))
            return self._open(Exchange(lost, codec=None))
        exchange = open_exchange(incoming, self._routes, can_stream=self._can_stream)
        if not exchange.request.is_finished:
            self._start(exchange.request)
        if not exchange.request.is_finished:
            return self._open(exchange)
        run_observer(self._handler.record, exchange.request)
        return exchange.complete()

    def _start(self, request: Request) -> None:
        for stage in (self._handler.preprocess, self._handler.render, self._handler.inference):
            if not request.is_finished:
                run_stage(stage, [request])
        if request.finish_reason is not None:  # An author's preprocess has answered, without the model.
            run_stage(self._handler.postprocess, [request])

    def _open(self, exchange: Exchange) -> Reply:
        self._live[exchange.request.id] = _Live(exchange, self._new_output(exchange.request))
        return exchange.open()

    def _collect(self, patience_s: float) -> None:
        """Take in events until something is due to be sent, or patience is over: every answer to the frontend costs it a round trip."""
        deadline_s = time.monotonic() + patience_s
        while True:
            wait_s = min([deadline_s - time.monotonic(), *(self._due_in_s(live) for live in self._live.values())])
            for event in self._poll(max(wait_s, 0.0)):
                self._take(event)
            if wait_s <= 0.0:
                return

    def _due_in_s(self, live: _Live) -> float:
        if live.request.is_finished:
            return 0.0
        pause_s = self._cadence.flush_s if live.exchange.pending else self._cadence.heartbeat_s
        return live.exchange.last_sent_s + pause_s - time.monotonic()

    def _poll(self, timeout_s: float) -> list[Event]:
        try:
            return self._engine.poll(timeout_s)
        except Exception:
            logger.exception("the engine cannot be asked for news: failing all requests that it works on")
            return [Event(request_id, finish_reason="error", error=_ENGINE_LOST) for request_id in self._live]

    def _take(self, event: Event) -> None:
        live = self._live.get(event.sequence_id)
        if live is None or live.request.is_finished:
            return  # Cancelled, or stopped by a stop string: what the engine still had in hand is of no interest.
        live.is_running = event.finish_reason is None
        run_stage(lambda _: self._advance(live, event), [live.request])

    def _advance(self, live: _Live, event: Event) -> None:
        """Take in an event of a live request. Whatever the tokenizer or a hook raises fails this request."""
        request, output = live.request, live.output
        if event.token_ids and request.first_token_s is None:
            request.first_token_s = time.time()
        text = output.push(event.token_ids, event.num_stop_tokens)
        request.num_generated_tokens = output.num_tokens
        reason: FinishReason | None = "stop" if output.is_stopped else event.finish_reason
        if reason is not None:
            text += output.finish()
        if text:
            self._handler.emit(request, Delta(text))
        if reason is None or request.error is not None:
            return
        if reason not in ("stop", "length"):
            raise Failed(event.error or "the engine gave this request up; send it again")
        request.finish_reason = reason
        self._handler.postprocess([request])

    def _next_reply(self, request_id: str) -> Reply | None:
        live = self._live[request_id]
        if live.request.is_finished:
            del self._live[request_id]
            if live.is_running:
                self._engine.cancel(request_id)
            run_observer(self._handler.record, live.request)
            return live.exchange.end()
        if self._due_in_s(live) > 0.0:
            return None
        live.num_confirmed_tokens, live.num_sent_tokens = live.num_sent_tokens, live.output.num_tokens
        return live.exchange.flush()


def _is_handed_over(incoming: Incoming) -> bool:
    """Whether the payload of this request, new to us, went to a worker that is dead now. (The payload of a form never comes at all.)"""
    is_form = incoming.content_type.lower().startswith(("application/x-www-form-urlencoded", "multipart/"))
    return incoming.body is None and not is_form and incoming.headers.get("content-length", "0") != "0"
