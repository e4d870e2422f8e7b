"""The client over a fake transport, and the way from an address to an OpenAI base URL."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from archiver.deploy.chat.authorization import GivenKey
from archiver.deploy.chat.client import ChatClient
from archiver.deploy.chat.endpoint import openai_base_url
from archiver.deploy.chat.stream import ChatError, Chunk
from archiver.errors import UsageError

URL = "http://here/predictions/bot/1.0/v1"


def client_of(handler: Callable[[httpx.Request], httpx.Response], auth: httpx.Auth | None = None) -> ChatClient:
    return ChatClient(URL, auth, httpx.MockTransport(handler))


def test_asks_as_the_api_wants_it():
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\ndata: [DONE]\n\n')

    with closing(client_of(answer, GivenKey("secret"))) as client:
        assert list(client.stream({"messages": [{"content": "\udcff"}]})) == [Chunk("Hi")]
    (request,) = seen
    assert (request.method, str(request.url)) == ("POST", f"{URL}/chat/completions")
    assert request.headers["authorization"] == "Bearer secret"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {"messages": [{"content": "\udcff"}]}


def test_closing_the_answer_closes_the_response():
    class Endless(httpx.SyncByteStream):
        is_closed = False

        def __iter__(self):
            while True:
                yield b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'

        def close(self) -> None:
            self.is_closed = True

    body = Endless()
    chunks = client_of(lambda _: httpx.Response(200, stream=body)).stream({})
    assert next(chunks).text == "x"
    assert not body.is_closed
    chunks.close()
    assert body.is_closed


def failing(error: type[httpx.TransportError]) -> Callable[[httpx.Request], httpx.Response]:
    def fail(request: httpx.Request) -> httpx.Response:
        raise error("refused", request=request)

    return fail


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (failing(httpx.ConnectError), "cannot reach http://here (refused): is the server running"),
        (failing(httpx.ReadTimeout), f"{URL} does not answer"),
        (failing(httpx.RemoteProtocolError), "the server broke the answer off (refused)"),
        (lambda _: httpx.Response(400, json={"error": {"message": "too hot"}}), "too hot"),
        (lambda _: httpx.Response(503, text="busy"), "the server answers HTTP 503: busy"),
    ],
)
def test_trouble_is_one_line(handler, message):
    with closing(client_of(handler)) as client:
        for ask in (client.models, lambda: list(client.stream({}))):
            with pytest.raises(ChatError) as error:
                ask()
            assert str(error.value).startswith(message)


def test_lists_models():
    assert client_of(lambda _: httpx.Response(200, json={"data": [{"id": "a"}, {"id": "b"}]})).models() == ["a", "b"]
    for other in ({"data": [1]}, {}, []):
        with pytest.raises(ChatError, match="is no OpenAI base URL: it lists no models"):
            client_of(lambda _, other=other: httpx.Response(200, json=other)).models()


ONE = {"bot": "2.0"}
TWO = {"bot": "2.0", "other": "1.0"}


@pytest.mark.parametrize(
    ("url", "model", "models", "base_url"),
    [
        ("http://here:1", None, ONE, "http://here:1/predictions/bot/2.0/v1"),
        ("http://here:1/", "other", TWO, "http://here:1/predictions/other/1.0/v1"),
        ("http://here:1", "new:3.0", None, "http://here:1/predictions/new/3.0/v1"),
        ("http://here:1", "a b/ü?\udcff:3.0", None, "http://here:1/predictions/a%20b%2F%C3%BC%3F%FF/3.0/v1"),
        ("http://here:1/predictions/bot/1.0", None, None, "http://here:1/predictions/bot/1.0/v1"),
        ("http://here:1/predictions/bot/1.0/v1/", None, None, "http://here:1/predictions/bot/1.0/v1"),
        ("https://elsewhere/openai/v1", "x", None, "https://elsewhere/openai/v1"),
    ],
)
def test_from_an_address_to_the_base_url(url, model, models, base_url):
    def ask() -> dict[str, str]:
        assert models is not None, "there was no need to ask"
        return models

    assert openai_base_url(url, model, ask) == base_url


@pytest.mark.parametrize(
    ("url", "model", "models", "complaint"),
    [
        ("http://here", None, TWO, "say which with --model: there are bot, other"),
        ("http://here", "bott", ONE, "no model 'bott' there: there are bot"),
        ("http://here", None, {}, "say which with --model: the server has no models"),
    ],
)
def test_what_an_address_lacks_is_said(url, model, models, complaint):
    with pytest.raises(UsageError) as error:
        openai_base_url(url, model, lambda: models)
    assert str(error.value) == complaint
