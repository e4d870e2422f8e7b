"""Keys that expire in the middle of a chat: with a server in memory that renews them, and answers that are streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from archiver.deploy.chat.authorization import GivenKey, StreamKeyAuth
from archiver.deploy.chat.client import ChatClient
from archiver.deploy.chat.stream import ChatError
from archiver.deploy.management import KeyFile
from archiver.errors import UsageError
from tests.archiver.deploy.management.fake_torchserve import KEY_REFUSED, error

EVENT = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'


class Endless(httpx.SyncByteStream):
    """An answer that nobody can read to its end."""

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield EVENT


class FakeServer:
    """Takes one inference key; ``GET /token`` writes the next one, unless the management API is out of reach."""

    def __init__(self, path: Path) -> None:
        self.keys = KeyFile(path)
        self.asked: list[str] = []
        self.is_manageable = True
        self.renew()

    def renew(self) -> None:
        self.key = f"key-{len(self.asked)}"
        self.keys.path.write_text(f'{{"inference": {{"key": "{self.key}"}}, "API": {{"key": "api"}}}}')

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if request.url.path == "/token":
            if not self.is_manageable:
                raise httpx.ConnectError("refused", request=request)
            assert (request.url.port, request.url.params["type"]) == (2, "inference")
            self.renew()
            return httpx.Response(200, text=" ")
        if request.headers.get("authorization") != f"Bearer {self.key}":
            return error(400, "InvalidKeyException", KEY_REFUSED)
        assert request.content == b"{}"
        return httpx.Response(200, stream=Endless())

    def client(self) -> ChatClient:
        return ChatClient("http://here:1/v1", StreamKeyAuth(self.keys, "inference", "http://here:2"), httpx.MockTransport(self.answer))


@pytest.fixture
def server(tmp_path: Path) -> FakeServer:
    return FakeServer(tmp_path / "key_file.json")


def ask(client: ChatClient) -> str:
    """Return the beginning of an answer."""
    answer = client.stream({})
    try:
        return next(answer).text
    finally:
        answer.close()


def test_an_expired_key_is_renewed_and_the_question_repeated(server: FakeServer) -> None:
    client = server.client()
    assert ask(client) == "x"
    server.key = "another by now"
    assert [ask(client), ask(client)] == ["x", "x"]
    assert server.asked == ["/v1/chat/completions"] * 2 + ["/token"] + ["/v1/chat/completions"] * 2


def test_a_key_that_others_have_renewed_is_read_again(server: FakeServer) -> None:
    client = server.client()
    assert ask(client) == "x"
    server.renew()
    assert ask(client) == "x"
    assert "/token" not in server.asked


def test_without_the_management_api_it_says_who_is_missing(server: FakeServer) -> None:
    server.key, server.is_manageable = "another by now", False
    with pytest.raises(ChatError, match="cannot reach http://here:2 "):
        ask(server.client())


@pytest.mark.parametrize("key", ["schlüssel", "a\nb", "\udcff"])
def test_a_key_that_no_header_can_hold(key: str) -> None:
    with pytest.raises(UsageError, match="--key: a key has ASCII characters only; write what key_file.json has"):
        GivenKey(key)
