"""Answer one batch of a synchronous worker: decode → preprocess → render → inference → postprocess → encode, once for all requests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from handlers.errors import SHUTTING_DOWN, Unavailable
from handlers.exchange import Exchange, open_exchange
from handlers.frontend import Incoming, Reply
from handlers.hooks import HandlerHooks
from handlers.requests import Request
from handlers.stages import run_observer, run_stage
from handlers.wire.codec import Codec


def answer_batch(
    handler: HandlerHooks, routes: Mapping[str, Codec], batch: Sequence[Incoming], *, send: Callable[[Reply], None]
) -> list[Reply]:
    """Return a reply for each request, which succeeds or fails alone; streamed text of a batch of one goes out through ``send`` at once."""
    can_stream = handler.has_capability("streaming")
    exchanges = [open_exchange(incoming, routes, can_stream=can_stream) for incoming in batch]
    live = [exchange for exchange in exchanges if not exchange.is_finished]
    for stage in (handler.preprocess, handler.render):
        run_stage(stage, _unfinished(live))
    for exchange in live:
        exchange.split()
    if len(exchanges) == 1:
        _stream_at_once(exchanges[0], send)
    run_stage(handler.inference, _unfinished(live))
    run_stage(handler.postprocess, _requests(live))
    return _finish(handler, exchanges)


def refuse_batch(handler: HandlerHooks, batch: Sequence[Incoming]) -> list[Reply]:
    """Return the replies of a worker that is about to stop."""
    return _finish(handler, [Exchange([Request(id=incoming.id, error=Unavailable(SHUTTING_DOWN))], codec=None) for incoming in batch])


def _finish(handler: HandlerHooks, exchanges: Sequence[Exchange]) -> list[Reply]:
    replies = [exchange.finish() for exchange in exchanges]
    for exchange in exchanges:
        for request in exchange.requests:
            run_observer(handler.record, request)
    return replies


def _requests(exchanges: Sequence[Exchange]) -> list[Request]:
    """Return the requests of the clients none of whose choices has failed."""
    return [request for exchange in exchanges if exchange.error is None for request in exchange.requests]


def _unfinished(exchanges: Sequence[Exchange]) -> list[Request]:
    return [request for request in _requests(exchanges) if not request.is_finished]


def _stream_at_once(exchange: Exchange, send: Callable[[Reply], None]) -> None:
    """Have each piece of text sent the moment it is emitted."""

    def write_and_send(write: Callable[[str], None], text: str) -> None:
        write(text)
        send(exchange.flush())

    for request in exchange.requests:
        if request.sink is not None:
            request.sink = functools.partial(write_and_send, request.sink)
