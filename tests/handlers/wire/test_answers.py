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
from handlers.requests import OutputToken, Request, SamplingParams, Token
from handlers.wire.chat import ChatCodec
from handlers.wire.codec import Codec, error_event, to_json
from handlers.wire.completions import CompletionCodec
from handlers.wire.models import ModelsCodec
from handlers.wire.prediction import PredictionCodec
from tests.fakes import parse_events

DEFAULTS = SamplingParams()
PIECES = ["Grüße", " 😀", '\n"quoted"']
TEXT = "".join(PIECES)
USAGE = {"prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 2}}


def finished(**more: Any) -> Request:
    """A request as it stands when its answer is written."""
    request = Request(id="r1", model="tiny", prompt_token_ids=[1, 2, 3], num_generated_tokens=7, num_cached_tokens=2)
    request.finish_reason, request.text = "length", TEXT
    for name, value in more.items():
        setattr(request, name, value)
    return request


def streamed(codec: Codec, request: Request) -> list[Any]:
    """Return the events of a stream whose text goes out in PIECES, the choices' one after the other."""
    request.stream, reason = True, request.finish_reason
    request.text, request.finish_reason = "", None
    exchange = Exchange([request], codec)
    exchange.split()
    stream = b""
    for piece in PIECES:
        for choice in exchange.requests:
            assert choice.sink is not None
            choice.sink(piece)
            stream += exchange.flush().body
    for choice in exchange.requests:
        choice.text, choice.finish_reason = TEXT, reason
    return list(parse_events(stream + exchange.end().body))


def with_logprobs(**more: Any) -> Request:
    """A finished request with two tokens of text."""
    rival = Token(9, "!", b"!")
    tokens = [
        OutputToken(Token(5, "Grü", "Grü".encode()), -0.25, 0, ((Token(5, "Grü", "Grü".encode()), -0.25), (rival, -2.0))),
        OutputToken(Token(6, "\\xc3", b"\xc3", is_special=True), float("-inf"), 3, ((rival, -0.1),)),
    ]
    return finished(tokens=tokens, params=SamplingParams(logprobs=2), **more)


class TestChat:
    codec = ChatCodec("tiny", DEFAULTS)

    def test_the_answer_is_a_chat_completion(self) -> None:
        answer = ChatCompletion.model_validate_json(self.codec.answer([finished()]), strict=True)

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
        exchange = Exchange([finished(stream=True, text="")], self.codec)
        exchange.split()

        first, done = parse_events(exchange.end().body)

        assert ChatCompletionChunk.model_validate(first).choices[0].delta.role == "assistant"

    def test_choices_share_an_answer_and_its_usage(self) -> None:
        choices = finished(n=2, num_cached_tokens=2).choices()
        choices[1].text = "other"

        answer = ChatCompletion.model_validate_json(self.codec.answer(choices))

        assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, TEXT), (1, "other")]
        assert answer.usage is not None
        assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 14, 17)

    def test_a_stream_of_two_choices_numbers_its_chunks_and_ends_once(self) -> None:
        *events, done = streamed(self.codec, finished(n=2))
        chunks = [ChatCompletionChunk.model_validate(event).choices[0] for event in events]

        assert done == "[DONE]"
        for index in (0, 1):
            mine = [chunk for chunk in chunks if chunk.index == index]
            assert "".join(chunk.delta.content or "" for chunk in mine) == TEXT
            assert [chunk.delta.role for chunk in mine] == ["assistant", None, None, None]
            assert [chunk.finish_reason for chunk in mine] == [None, None, None, "length"]

    def test_log_probabilities_name_tokens_bytes_and_rivals(self) -> None:
        logprobs = ChatCompletion.model_validate_json(self.codec.answer([with_logprobs()])).choices[0].logprobs

        assert logprobs is not None and logprobs.content is not None
        first, second = logprobs.content
        assert (first.token, first.logprob, first.bytes) == ("Grü", -0.25, list("Grü".encode()))
        assert [(other.token, other.logprob) for other in first.top_logprobs] == [("Grü", -0.25), ("!", -2.0)]
        assert (second.token, second.logprob, second.bytes) == ("\\xc3", -9999.0, [0xC3])
        assert json.loads(self.codec.answer([finished()]))["choices"][0]["logprobs"] is None

    def test_a_streams_tokens_travel_with_their_text(self) -> None:
        request = with_logprobs(stream=True, finish_reason=None, text="")
        tokens, request.tokens = request.tokens, []
        exchange = Exchange([request], self.codec)
        exchange.split()
        assert request.sink is not None
        request.tokens.append(tokens[0])
        request.sink("Grü")
        stream = exchange.flush().body
        request.tokens.append(tokens[1])
        request.finish_reason = "stop"
        *events, _ = parse_events(stream + exchange.end().body)

        chunks = [ChatCompletionChunk.model_validate(event).choices[0] for event in events]
        sent = [[token.token for token in chunk.logprobs.content or []] if chunk.logprobs else [] for chunk in chunks]
        assert sent == [["Grü"], ["\\xc3"], []]

    def test_fields_of_the_author_stand_at_the_top(self) -> None:
        assert json.loads(self.codec.answer([finished(fields={"redacted": 2})]))["redacted"] == 2
        events = streamed(self.codec, finished(fields={"redacted": 2}))
        assert [event.get("redacted") for event in events[:-1]] == [None, None, None, 2]


class TestCompletions:
    codec = CompletionCodec("tiny", DEFAULTS)

    def test_the_answer_is_a_completion(self) -> None:
        answer = Completion.model_validate_json(self.codec.answer([finished(finish_reason="stop")]), strict=True)

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

    def test_log_probabilities_stand_in_four_lists(self) -> None:
        logprobs = Completion.model_validate_json(self.codec.answer([with_logprobs(finish_reason="stop")])).choices[0].logprobs

        assert logprobs is not None
        assert (logprobs.tokens, logprobs.token_logprobs, logprobs.text_offset) == (["Grü", "\\xc3"], [-0.25, -9999.0], [0, 3])
        assert logprobs.top_logprobs == [{"Grü": -0.25, "!": -2.0}, {"\\xc3": -9999.0, "!": -0.1}]

    def test_choices_of_two_prompts_are_counted_through(self) -> None:
        first, second = finished(n=2, index=0), finished(n=2, index=2, prompt_token_ids=[7])
        choices = [*first.choices(), *second.choices()]

        answer = Completion.model_validate_json(self.codec.answer(choices))

        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (4, 28)


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
        (request,) = exchange.requests
        if request.error is None:
            request.prompt_token_ids, request.num_generated_tokens = [1, 2, 3], 7
            request.text, request.finish_reason = TEXT, "stop"
            request.tokens = with_logprobs().tokens if request.params.logprobs is not None else []
            exchange.split()
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
        assert [(token.id, token.text, token.logprob, token.special) for token in output.details.tokens] == [
            (5, "Grü", -0.25, False),
            (6, "\\xc3", -9999.0, True),
        ]

    def test_the_hugging_face_client_reads_the_likeliest_tokens(self, hugging_face: InferenceClient) -> None:
        output = hugging_face.text_generation("hi", details=True, top_n_tokens=2)

        assert output.details is not None and output.details.top_tokens is not None
        tokens: Any = output.details.top_tokens  # The client leaves these lists of lists unparsed.
        assert [[token["text"] for token in rivals] for rivals in tokens] == [["Grü", "!"], ["!"]]

    def test_the_hugging_face_client_reads_the_stream(self, hugging_face: InferenceClient) -> None:
        assert "".join(hugging_face.text_generation("hi", stream=True)) == TEXT
        *_, last = hugging_face.text_generation("hi", stream=True, details=True)
        assert last.generated_text == TEXT and last.details is not None and last.details.input_length == 3

    def test_the_hugging_face_client_understands_the_refusal(self, hugging_face: InferenceClient) -> None:
        with pytest.raises(BadRequestError):
            hugging_face.text_generation("hi", best_of=2)

    def test_plain_text_is_answered_with_the_bare_text(self) -> None:
        exchange = open_exchange(Incoming("r1", "", b"hi", "text/plain"), {"": PredictionCodec("tiny", DEFAULTS)}, can_stream=True)
        exchange.requests[0].text, exchange.requests[0].finish_reason = TEXT, "stop"

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
