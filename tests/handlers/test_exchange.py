"""One request's messages in their order, and that no answer of an author's can break them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handlers.errors import InvalidRequest, Overloaded
from handlers.exchange import Exchange, open_exchange
from handlers.frontend import EVENT_STREAM, JSON, Incoming
from handlers.requests import Request, SamplingParams
from handlers.wire.chat import ChatCodec
from handlers.wire.completions import CompletionCodec, CompletionStream
from tests.fakes import parse_events

CODEC = CompletionCodec("tiny", SamplingParams())
ROUTES = {"v1/completions": CODEC}


def exchange_of(**attributes: Any) -> Exchange:
    request = Request(id="r1", text="abc", finish_reason="stop")
    for name, value in attributes.items():
        setattr(request, name, value)
    exchange = Exchange([request], CODEC)
    exchange.split()
    return exchange


def write(exchange: Exchange, text: str, choice: int = 0) -> None:
    sink = exchange.requests[choice].sink
    assert sink is not None
    sink(text)


def opened(body: bytes, *, can_stream: bool = True) -> Exchange:
    return open_exchange(Incoming("r1", "v1/completions", body), ROUTES, can_stream=can_stream)


def test_the_first_message_has_a_status_and_no_byte() -> None:
    assert exchange_of(stream=True).open().content_type == EVENT_STREAM
    reply = exchange_of().open()
    assert (reply.body, reply.more, reply.status, reply.content_type) == (b"", True, 200, JSON)


def test_queued_text_goes_out_once() -> None:
    exchange = exchange_of(stream=True, text="", finish_reason=None)
    write(exchange, "a")
    write(exchange, "b")
    assert exchange.has_news

    (event,) = parse_events(exchange.flush().body)

    assert event["choices"][0]["text"] == "ab"
    assert exchange.flush().body == b"" and not exchange.has_news


def test_the_end_carries_what_is_still_queued() -> None:
    exchange = exchange_of(stream=True, text="")
    write(exchange, "abc")

    reply = exchange.end()

    text, finish, done = parse_events(reply.body)
    assert (text["choices"][0]["text"], finish["choices"][0]["finish_reason"], done) == ("abc", "stop", "[DONE]")
    assert reply.more is False


def test_a_complete_stream_is_all_its_events() -> None:
    reply = exchange_of(stream=True).complete()

    assert reply.content_type == EVENT_STREAM and reply.more is None
    assert len(list(parse_events(reply.body))) == 3


def test_an_error_before_the_first_message_has_its_status_and_headers() -> None:
    reply = exchange_of(error=Overloaded("full", retry_after_s=3)).complete()

    assert (reply.status, reply.content_type, reply.headers, reply.more) == (429, JSON, {"Retry-After": "3"}, None)
    assert json.loads(reply.body)["error"]["type"] == "rate_limit_error"


@pytest.mark.parametrize("stream", [True, False])
def test_an_error_after_the_first_message_goes_into_the_body(stream: bool) -> None:
    reply = exchange_of(stream=stream, error=InvalidRequest("no")).end()

    body = next(parse_events(reply.body)) if stream else json.loads(reply.body)
    assert body["error"]["message"] == "no"
    assert (reply.status, reply.more) == (200, False)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("method", ["complete", "end"])
@pytest.mark.parametrize("value", [{1, 2}, float("nan"), object()])
def test_fields_that_are_no_json_fail_the_request_and_tell_nothing(stream: bool, method: str, value: Any) -> None:
    exchange = exchange_of(stream=stream, fields={"secret": value})

    reply = getattr(exchange, method)()

    assert exchange.error is not None and exchange.error.status == 500
    assert b"internal error" in reply.body and b"secret" not in reply.body
    assert reply.status == (500 if method == "complete" else 200)


def test_a_frame_that_cannot_be_written_fails_the_request() -> None:
    class Broken(CompletionCodec):
        def stream(self, choice: Request) -> CompletionStream:
            raise RuntimeError("broken")

    exchange = Exchange([Request(stream=True)], Broken("tiny", SamplingParams()))
    exchange.split()
    write(exchange, "a")

    reply = exchange.flush()

    assert (reply.body, reply.more) == (b"", True)
    assert exchange.error is not None


def test_choices_write_into_one_stream_and_end_each_by_itself() -> None:
    exchange = exchange_of(stream=True, text="", finish_reason=None, n=2)
    first, second = exchange.requests
    write(exchange, "a", 0)
    write(exchange, "b", 1)
    first.finish_reason = "stop"
    events = [event["choices"][0] for event in parse_events(exchange.flush().body)]

    assert [(event["index"], event["text"], event["finish_reason"]) for event in events] == [
        (0, "a", None),
        (0, "", "stop"),
        (1, "b", None),
    ]
    assert not exchange.is_finished
    second.finish_reason = "length"
    *events, done = parse_events(exchange.end().body)
    assert [event["choices"][0]["index"] for event in events] == [1] and done == "[DONE]"


def test_a_choice_that_fails_fails_the_whole() -> None:
    exchange = exchange_of(n=2)
    exchange.requests[0].finish_reason = None
    exchange.requests[1].error = Overloaded("full")

    assert exchange.is_finished
    assert exchange.complete().status == 429
    assert exchange.requests[0].error is exchange.requests[1].error


def test_a_codec_that_raises_fails_its_request() -> None:
    class Broken(ChatCodec):
        def decode(self, incoming: Incoming) -> list[Request]:
            raise RuntimeError("secret")

    exchange = open_exchange(Incoming("r1", "x"), {"x": Broken("tiny", SamplingParams())}, can_stream=True)

    assert (exchange.requests[0].id, exchange.complete().status) == ("r1", 500)
    assert b"secret" not in exchange.complete().body


def test_only_a_streamed_request_has_a_sink() -> None:
    for body, has_sink in ((b'{"prompt": "x"}', False), (b'{"prompt": "x", "stream": true}', True)):
        exchange = opened(body)
        exchange.split()
        assert (exchange.requests[0].sink is not None) == has_sink


def test_a_handler_that_does_not_stream_says_so() -> None:
    error = opened(b'{"prompt": "x", "stream": true}', can_stream=False).error

    assert error is not None and (error.status, error.param) == (400, "stream")
    assert opened(b'{"prompt": "x"}', can_stream=False).error is None
