"""A driver with everything around it scripted: what the tests of the driver share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from handlers.driver import Cadence, ContinuousDriver
from handlers.frontend import Incoming, Reply
from handlers.hooks import HandlerHooks
from handlers.mixins.streaming import StreamingMixin
from handlers.requests import Request, SamplingParams
from handlers.text.output import TextOutput
from handlers.wire.codec import Codec
from handlers.wire.completions import CompletionCodec
from tests.fakes import FakeEngine, parse_events

ROUTE = "v1/completions"
AT_ONCE = Cadence(flush_s=0.0, message_s=0.0, heartbeat_s=0.0, poll_s=0.0)
NEVER = Cadence(flush_s=0.0, message_s=0.0, heartbeat_s=3600.0, poll_s=0.0)


class _Generation(HandlerHooks):
    """What a model would add: a token is a character."""

    provides = frozenset({"inference"})

    def routes(self) -> dict[str, Codec]:
        return {ROUTE: CompletionCodec("tiny", SamplingParams())}

    def render(self, requests: list[Request]) -> list[Request]:
        for request in requests:
            request.prompt_token_ids = list(map(ord, request.prompt or ""))
        return requests

    def inference(self, requests: list[Request]) -> list[Request]:
        for request in requests:
            self.engine.add(
                request.sequence_id, request.prompt_token_ids, request.params, priority=request.priority, max_queue_s=request.max_queue_s
            )
        return requests

    def record(self, request: Request) -> None:
        self.recorded.append(request)

    engine: FakeEngine
    recorded: list[Request]


class ScriptedHandler(StreamingMixin, _Generation):
    """A handler whose requests are recorded when their fate is known; tests override its hooks by assigning them."""


class Rig:
    """A driver, its engine and its handler. ``step`` takes the ids of the requests that the frontend shows."""

    def __init__(self, cadence: Cadence = AT_ONCE) -> None:
        self.engine = FakeEngine()
        self.handler = ScriptedHandler()
        self.handler.engine, self.handler.recorded = self.engine, []
        self.driver = ContinuousDriver(self.handler, self.engine, new_output, cadence)

    @property
    def recorded(self) -> list[Request]:
        return self.handler.recorded

    def admit(self, request_id: str = "a", *others: str, **params: Any) -> Reply:
        """Send a new request while ``others`` are live; return the reply to it."""
        reply = self.step(Incoming(request_id, ROUTE, completion(**params)), *others)[0]
        assert reply is not None
        return reply

    def step(self, *batch: Incoming | str) -> list[Reply | None]:
        return self.driver.step([shown(item) if isinstance(item, str) else item for item in batch])

    def reply(self, request_id: str = "a") -> Reply:
        (reply,) = self.step(request_id)
        assert reply is not None
        return reply


def new_output(request: Request) -> TextOutput:
    return TextOutput(lambda token_ids: "".join(map(chr, token_ids)), request.params.stop)


def completion(**params: Any) -> bytes:
    return json.dumps({"prompt": "hi"} | params).encode()


def shown(request_id: str) -> Incoming:
    """A live request as the frontend shows it again: its headers, without the payload."""
    return Incoming(request_id, ROUTE, None, headers={"content-length": "15"})


def usage(prompt: int, completion: int, cached: int = 0) -> dict[str, Any]:
    """Return the usage object of an answer."""
    details = {"prompt_tokens_details": {"cached_tokens": cached}}
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion} | details


def texts(replies: Sequence[Reply]) -> str:
    """Return the text of a stream's replies."""
    events = [event for reply in replies for event in parse_events(reply.body) if event != "[DONE]"]
    return "".join(choice["text"] for event in events for choice in event["choices"])
