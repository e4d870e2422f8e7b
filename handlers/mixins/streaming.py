"""Send text while it is generated."""

from __future__ import annotations

from handlers.hooks import HandlerHooks
from handlers.requests import Delta, Request


class StreamingMixin(HandlerHooks):
    """Accept ``stream: true`` and send each new piece of text on its way.

    Adds streaming. Owns nothing: a request knows its own ``sink``. Requires a class that generates.
    """

    provides = frozenset({"streaming"})
    requires = {"inference": "ContinuousGenerationMixin"}

    def emit(self, request: Request, delta: Delta) -> None:
        """Pass the text to the client, after every change that authors made to it."""
        super().emit(request, delta)
        if request.sink is not None and delta.text:
            request.sink(delta.text)
