"""Stand-ins for what surrounds a handler: an engine that says what it is told to, and TorchServe's frontend without its network."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from handlers.config import HandlerConfig
from handlers.engine.client import EngineStats, Event
from handlers.errors import SHUTTING_DOWN, RequestError
from handlers.hooks import HandlerHooks
from handlers.requests import SamplingParams

PREDICT, END = b"I", -1


class FakeEngine:
    """An EngineClient that reports exactly the events that a test has put into ``events``, and remembers what it was asked."""

    def __init__(self, max_model_len: int = 1000) -> None:
        self.max_model_len = max_model_len
        self.events: list[Event] = []
        self.added: dict[str, tuple[list[int], SamplingParams]] = {}
        self.queueing: dict[str, tuple[int, float | None]] = {}  # priority and patience of what was added
        self.room: int | None = None  # sequences that are taken before the refusal
        self.cancelled: list[str] = []
        self.refusal: Exception | None = None
        self.failure: Exception | None = None
        self.is_done_in_time = True  # when it is drained

    def add(
        self,
        sequence_id: str,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        max_queue_s: float | None = None,
    ) -> None:
        self.check_room()
        self.added[sequence_id] = (list(prompt_token_ids), params)
        self.queueing[sequence_id] = (priority, max_queue_s)

    def check_room(self) -> None:
        if self.refusal is not None and len(self.added) >= (self.room or 0):
            raise self.refusal

    def cancel(self, sequence_id: str) -> None:
        self.cancelled.append(sequence_id)

    def poll(self, timeout_s: float) -> list[Event]:
        if self.failure is not None:
            raise self.failure
        events, self.events = self.events, []
        return events

    def say(self, sequence_id: str, text: str = "", finish_reason: Any = None, **more: Any) -> None:
        """Report one token for each character of ``text``."""
        self.events.append(Event(sequence_id, tuple(map(ord, text)), finish_reason, **more))

    def stats(self) -> EngineStats:
        return EngineStats(running=len(self.added))

    def drain(self, timeout_s: float) -> bool:
        return self.is_done_in_time

    def close(self) -> None:
        """End everything, as an engine does; what a test has said before comes first."""
        self.events += [Event(sequence_id, finish_reason="error", error=SHUTTING_DOWN) for sequence_id in self.added]


def make_context(handler: type[HandlerHooks], model_dir: Path, /, *, name: str = "tiny", **keys: Any) -> Any:
    """Return TorchServe's own Context for a worker with ``handler`` in ``model_dir``; ``keys`` override model-config.yaml's."""
    import ts
    from ts.context import Context
    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

    metrics = MetricsCacheYamlImpl(str(Path(__file__).parents[1] / "config" / "metrics.yaml"))
    metrics.initialize_cache()
    model_config = handler.frontend_keys(HandlerConfig()) | keys
    return Context(name, str(model_dir), {"model": {"modelVersion": "1.0"}}, 8, None, ts.__version__, True, metrics, model_config)


def keep_worker(patch: pytest.MonkeyPatch) -> None:
    """Have what a handler's ``initialize`` changes in its worker process changed back when ``patch`` ends."""
    from ts.protocol import otf_message_handler
    from ts.service import Service

    for owner, name in (
        (otf_message_handler, "_retrieve_buffer"),
        (otf_message_handler, "_retrieve_inference_msg"),
        (Service, "predict"),
    ):
        patch.setattr(owner, name, getattr(owner, name))
    patch.setattr("logging.root.filters", [])
    patch.setenv("TS_DECODE_INPUT_REQUEST", "true")


@dataclass
class Answer:
    """What one client has received; ``is_complete`` once nothing more will come."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    num_messages: int = 0
    is_complete: bool = False

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        return [event for event in parse_events(self.body) if event != "[DONE]"]


class FakeFrontend:
    """Play TorchServe's frontend for one handler, message for message as its Java side does with ``continuousBatching``.

    ``send`` queues a request, ``step`` makes one call of ``handle`` with all that are live, ``leave`` is a client that goes away.
    """

    def __init__(self, handler: Any, context: Any) -> None:
        self._handler = handler
        self._context = context
        self._payloads: dict[str, dict[str, Any]] = {}  # of live requests; empty once a message with more to follow has come
        self._headers: dict[str, dict[str, Any]] = {}
        self.answers: dict[str, Answer] = {}

    def send(self, request_id: str, route: str, body: Any, content_type: str = "application/json") -> Answer:
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._payloads[request_id] = {"body": bytearray(payload)} if payload else {}
        self._headers[request_id] = {
            "url_path": route,
            "Content-Length": str(len(payload)),
            "Content-Type": content_type,
            "body": {"content-type": content_type},
        }
        self.answers[request_id] = Answer()
        return self.answers[request_id]

    def leave(self, request_id: str) -> None:
        del self._payloads[request_id]

    @property
    def live(self) -> list[str]:
        return list(self._payloads)

    def step(self) -> None:
        from ts.context import RequestProcessor
        from ts.protocol.otf_message_handler import create_predict_response

        live = self.live
        self._context.request_ids = dict(enumerate(live))
        self._context.request_processor = [RequestProcessor(dict(self._headers[request_id])) for request_id in live]
        bodies = self._handler.handle([self._payloads[request_id] for request_id in live], self._context)
        message = create_predict_response(bodies, self._context.request_ids, "", 200, context=self._context)
        for reply in parse_response(bytes(message)):
            self._deliver(reply)

    def run(self, max_steps: int = 10_000) -> None:
        """Step until every request is answered."""
        for _ in range(max_steps):
            if not self._payloads:
                return
            self.step()
        raise AssertionError(f"still unanswered after {max_steps} steps: {self.live}")

    def _deliver(self, reply: ResponseMessage) -> None:
        answer = self.answers[reply.request_id]
        assert not answer.is_complete, f"{reply.request_id} was answered after its end"
        more = reply.headers.pop("ts_stream_next", None)
        if answer.num_messages == 0:
            answer.status, answer.headers = reply.status, reply.headers
            assert more != "false", "a stream whose first message is its last hangs the client"
        answer.num_messages += 1
        answer.body += reply.body
        answer.is_complete = more != "true"
        if answer.is_complete:
            self._payloads.pop(reply.request_id, None)
        else:
            self._payloads[reply.request_id] = {}


@dataclass(frozen=True)
class ResponseMessage:
    """One request's part of the message that a worker sends."""

    request_id: str
    status: int
    headers: dict[str, str]
    body: bytes


def parse_response(message: bytes) -> list[ResponseMessage]:
    """Read what ``create_predict_response`` writes, field for field."""
    position = 0

    def integer() -> int:
        nonlocal position
        position += 4
        return int(struct.unpack("!i", message[position - 4 : position])[0])

    def chunk() -> bytes:
        nonlocal position
        length = integer()
        position += length
        return message[position - length : position]

    integer()  # the batch's own status
    chunk()  # and message
    replies = []
    while (length := integer()) != END:
        position += length
        request_id = message[position - length : position].decode()
        chunk()  # the content type, which stands among the headers too
        status, _ = integer(), chunk()
        headers = {chunk().decode(): chunk().decode() for _ in range(integer())}
        replies.append(ResponseMessage(request_id, status, headers, chunk()))
    assert position == len(message)
    return replies


def predict_message(requests: Sequence[tuple[str, Mapping[str, str], bytes]]) -> bytes:
    """Return the frontend's message for ``requests`` of (id, headers, body); an empty body is no parameter at all."""

    def field_of(data: bytes) -> bytes:
        return struct.pack("!i", len(data)) + data

    end = struct.pack("!i", END)
    message = PREDICT
    for request_id, headers, body in requests:
        message += field_of(request_id.encode())
        message += b"".join(field_of(name.encode()) + field_of(value.encode()) for name, value in headers.items()) + end
        message += (field_of(b"body") + field_of(b"application/json") + field_of(body) if body else b"") + end
    return message + end


def parse_events(stream: bytes) -> Iterator[Any]:
    """Yield the payload of each server-sent event, strictly: every byte belongs to a ``data:`` line and its empty line."""
    *events, rest = stream.split(b"\n\n")
    assert rest == b"", f"the stream does not end with an empty line: {rest!r}"
    for event in events:
        assert event.startswith(b"data: "), event
        assert b"\n" not in event
        data = event.removeprefix(b"data: ")
        yield "[DONE]" if data == b"[DONE]" else json.loads(data)


def every_refusal() -> list[RequestError]:
    """One error of each class that a request can end with at admission."""
    from handlers.errors import Failed, InvalidRequest, NotFound, Overloaded, Unavailable

    return [InvalidRequest("no"), NotFound("no"), Overloaded("full"), Unavailable("stopping"), Failed()]
