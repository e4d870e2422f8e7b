"""A client's request whose answer has begun, and what the engine's events make of its choices."""

from __future__ import annotations

from dataclasses import dataclass, field

from handlers.engine.client import Event
from handlers.errors import SHUTTING_DOWN, Failed, Overloaded, Unavailable
from handlers.exchange import Exchange
from handlers.hooks import HandlerHooks
from handlers.requests import Delta, FinishReason, Request
from handlers.stages import run_stage
from handlers.text.output import TextOutput


@dataclass(eq=False, slots=True)
class LiveRequest:
    """All choices of one client. Not thread-safe."""

    exchange: Exchange
    choices: list[LiveChoice] = field(default_factory=list)
    is_finished: bool = False
    """Whether nothing more will be generated for the client."""
    held_until_s: float = 0.0
    num_held_bytes: int = 0
    """When the first message is due, on the monotonic clock, unless the whole answer is there before it."""
    num_sent_tokens: int = 0
    num_confirmed_tokens: int = 0
    """Tokens generated when the client was last known to be there: a message only shows that the one before it was not the last."""

    @property
    def num_tokens(self) -> int:
        """Tokens generated for the client so far."""
        return sum([choice.output.num_tokens for choice in self.choices])

    def note_sent(self) -> None:
        """Note that a message goes out with all that there is."""
        self.num_confirmed_tokens, self.num_sent_tokens = self.num_sent_tokens, self.num_tokens


@dataclass(eq=False, slots=True)
class LiveChoice:
    """A choice that the engine works on: one of its sequences."""

    live: LiveRequest
    request: Request
    output: TextOutput
    is_running: bool
    """Whether the engine may still generate for it."""

    def take(self, event: Event, handler: HandlerHooks) -> None:
        """Take in an event. Whatever the tokenizer or a hook raises fails the request."""
        self.is_running = event.finish_reason is None
        self.request.times.book_engine(has_tokens=bool(event.token_ids), queue_s=event.start.queue_s if event.start else 0.0)
        run_stage(lambda _: self._advance(event, handler), [self.request])
        self.request.times.book("detokenize")
        if self.request.is_finished:
            self.live.is_finished = self.live.exchange.is_finished
            self.live.exchange.has_news = True

    def _advance(self, event: Event, handler: HandlerHooks) -> None:
        request, output = self.request, self.output
        if event.start is not None:
            request.num_cached_tokens = event.start.num_cached_tokens
        text = output.push(event.token_ids, event.num_stop_tokens, event.logprobs)
        request.num_generated_tokens = output.num_tokens
        reason: FinishReason | None = "stop" if output.is_stopped else event.finish_reason
        if reason is not None:
            text += output.finish()
        request.tokens += output.take_tokens()
        if text:
            handler.emit(request, Delta(text))
        if reason is None or request.error is not None:
            return
        _check_ending(reason, event.error)
        request.finish_reason = reason
        handler.postprocess([request])


def _check_ending(reason: FinishReason, error: str | None) -> None:
    """Raise what the client is told of a sequence that did not end by itself."""
    if reason == "expired":
        raise Overloaded("this request waited as long as it may and was not begun; send it again later", code="queue_timeout")
    if error == SHUTTING_DOWN:
        raise Unavailable(error)
    if reason not in ("stop", "length"):
        raise Failed(error or "the engine gave this request up; send it again")
