"""What clients read: answers and event streams, parsed by the types of their own libraries."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import BadRequestError
from openai.types import Completion, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from handlers.errors import Failed
from handlers.exchange import Exchange, open_exchange
from handlers.frontend import Incoming
from handlers.requests import Request, SamplingParams
from handlers.wire.chat import ChatCodec
from handlers.wire.codec import Codec, error_event, to_json
from handlers.wire.completions import CompletionCodec
from handlers.wire.models import ModelsCodec
from handlers.wire.prediction import PredictionCodec
from tests.fakes import parse_events

DEFAULTS = SamplingParams()
PIECES = ["Grüße", " 😀", '\n"quoted"']
TEXT = "".join(PIECES)
USAGE = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10}


def finished(**more: Any) -> Request:
    """A request as it stands when its answer is written."""
    request = Request(id="r1", model="tiny", prompt_token_ids=[1, 2, 3], num_generated_tokens=7, finish_reason="length", text=TEXT)
    for name, value in more.items():
        setattr(request, name, value)
    return request


def streamed(codec: Codec, request: Request) -> list[Any]:
    """Return the events of a stream whose text goes out in PIECES."""
    request.stream = True
    exchange = Exchange(request, codec)
    stream = b""
    for piece in PIECES:
        exchange.write(piece)
        stream += exchange.flush().body
    return list(parse_events(stream + exchange.end().body))


class TestChat:
    codec = ChatCodec("tiny", DEFAULTS)

    def test_the_answer_is_a_chat_completion(self) -> None:
        answer = ChatCompletion.model_validate_json(self.codec.answer(finished()), strict=True)

        assert answer.choices[0].message.content == TEXT
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None and answer.usage.model_dump(exclude_none=True) == USAGE
        assert (answer.id, answer.model) == ("chatcmpl-r1", "tiny")

    def test_a_stream_is_chunks_with_one_role_and_one_finish_reason(self) -> None:
        *events, done = streamed(self.codec, finished())
        chunks = [ChatCompletionChunk.model_validate(event) for event in events]

        assert done == "[DONE]"
        assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == PIECES
        assert [chunk.choices[0].delta.role for chunk in chunks] == ["assistant", None, None, None]
        assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "length"]
        assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {("chatcmpl-r1", "chat.completion.chunk", "tiny")}
        assert all(chunk.usage is None for chunk in chunks)

    def test_usage_comes_last_and_without_choices(self) -> None:
        last, done = streamed(self.codec, finished(include_usage=True))[-2:]
        chunk = ChatCompletionChunk.model_validate(last)

        assert done == "[DONE]"
        assert chunk.choices == []
        assert chunk.usage is not None and chunk.usage.model_dump(exclude_none=True) == USAGE

    def test_a_stream_without_text_still_has_a_role(self) -> None:
        exchange = Exchange(finished(stream=True, text=""), self.codec)

        first, done = parse_events(exchange.end().body)

        assert ChatCompletionChunk.model_validate(first).choices[0].delta.role == "assistant"

    def test_fields_of_the_author_stand_at_the_top(self) -> None:
        assert json.loads(self.codec.answer(finished(fields={"redacted": 2})))["redacted"] == 2
        events = streamed(self.codec, finished(fields={"redacted": 2}))
        assert [event.get("redacted") for event in events[:-1]] == [None, None, None, 2]


class TestCompletions:
    codec = CompletionCodec("tiny", DEFAULTS)

    def test_the_answer_is_a_completion(self) -> None:
        answer = Completion.model_validate_json(self.codec.answer(finished(finish_reason="stop")), strict=True)

        assert (answer.choices[0].text, answer.choices[0].finish_reason) == (TEXT, "stop")
        assert answer.usage is not None and answer.usage.model_dump(exclude_none=True) == USAGE

    def test_a_stream_is_completions(self) -> None:
        *events, done = streamed(self.codec, finished(include_usage=True))
        # The client's type for a chunk is the whole answer's, which wants a finish reason; the client does not check it.
        *chunks, usage = events

        assert done == "[DONE]"
        assert [chunk["choices"][0]["text"] for chunk in chunks] == [*PIECES, ""]
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]
        assert Completion.model_validate(chunks[-1] | {"usage": usage["usage"]}, strict=True).usage is not None
        assert usage["choices"] == [] and usage["usage"] == USAGE


class TestModels:
    def test_the_list_and_the_card(self) -> None:
        codec = ModelsCodec("tiny", created_s=5.5)
        routes = {"v1/models": codec, "v1/models/models": codec}

        listed = json.loads(open_exchange(Incoming("a", "v1/models"), routes, can_stream=True).complete().body)
        card = json.loads(open_exchange(Incoming("a", "v1/models/models"), routes, can_stream=True).complete().body)

        assert listed == {"object": "list", "data": [card]}
        assert Model.model_validate(card, strict=True) == Model(id="tiny", created=5, object="model", owned_by="marquee")


class _TGIServer(BaseHTTPRequestHandler):
    """The bare route over HTTP, with an engine that always says TEXT."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        incoming = Incoming("r1", "", body, self.headers["content-type"])
        exchange = open_exchange(incoming, {"": PredictionCodec("tiny", DEFAULTS)}, can_stream=True)
        request = exchange.request
        if request.error is None:
            request.prompt_token_ids, request.num_generated_tokens = [1, 2, 3], 7
            request.text, request.finish_reason = TEXT, "stop"
            exchange.pending = TEXT if request.stream else ""
        reply = exchange.complete()
        self.send_response(reply.status)
        self.send_header("content-type", reply.content_type)
        self.send_header("content-length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def hugging_face() -> Iterator[InferenceClient]:
    server = HTTPServer(("127.0.0.1", 0), _TGIServer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield InferenceClient(model=f"http://127.0.0.1:{server.server_port}", token="unused")
    server.shutdown()
    thread.join()
    server.server_close()


class TestPrediction:
    def test_the_hugging_face_client_reads_the_text(self, hugging_face: InferenceClient) -> None:
        assert hugging_face.text_generation("hi", max_new_tokens=7, do_sample=True, temperature=0.5, stop=["x"], seed=1) == TEXT

    def test_the_hugging_face_client_reads_details(self, hugging_face: InferenceClient) -> None:
        output = hugging_face.text_generation("hi", max_new_tokens=7, seed=5, details=True)

        assert output.generated_text == TEXT
        assert output.details is not None
        assert (output.details.finish_reason, output.details.generated_tokens, output.details.seed) == ("eos_token", 7, 5)

    def test_the_hugging_face_client_reads_the_stream(self, hugging_face: InferenceClient) -> None:
        assert "".join(hugging_face.text_generation("hi", stream=True)) == TEXT
        *_, last = hugging_face.text_generation("hi", stream=True, details=True)
        assert last.generated_text == TEXT and last.details is not None and last.details.input_length == 3

    def test_the_hugging_face_client_understands_the_refusal(self, hugging_face: InferenceClient) -> None:
        with pytest.raises(BadRequestError):
            hugging_face.text_generation("hi", repetition_penalty=1.5)

    def test_plain_text_is_answered_with_the_bare_text(self) -> None:
        exchange = open_exchange(Incoming("r1", "", b"hi", "text/plain"), {"": PredictionCodec("tiny", DEFAULTS)}, can_stream=True)
        exchange.request.text, exchange.request.finish_reason = TEXT, "stop"

        assert exchange.complete().body == exchange.end().body == TEXT.encode()
        assert exchange.complete().content_type == exchange.open().content_type == "text/plain; charset=utf-8"


def test_an_error_event_is_what_the_openai_client_raises() -> None:
    (event,) = parse_events(error_event(Failed("lost")))

    assert event == {"error": {"message": "lost", "type": "server_error", "param": None, "code": None}}


def test_json_replaces_what_utf8_cannot_say_and_refuses_what_json_cannot() -> None:
    assert to_json({"a": "\ud800ü"}) == '{"a":"?ü"}'.encode()
    for value in (float("nan"), float("inf"), {1, 2}):
        with pytest.raises((ValueError, TypeError)):
            to_json(value)
