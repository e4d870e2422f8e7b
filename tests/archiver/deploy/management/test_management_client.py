"""Both clients against TorchServe's answers: what is read, what is sent, which error stands for which answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from archiver.deploy import AsyncManagementClient, KeyFile, ManagementClient, ModelSummary, WorkerStatus
from archiver.deploy.management import Conflict, LoadFailed, ManagementError, ModelApiOff, ModelNotFound, Refused, Unauthorized, Unreachable
from archiver.errors import UsageError
from tests.archiver.deploy.management.fake_torchserve import FakeTorchServe, FakeVersion

URL = "http://127.0.0.1:8081"


class Awaited:
    """The asynchronous client with the synchronous one's methods."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._client = AsyncManagementClient(*args, **options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: asyncio.run(getattr(self._client, name)(*args, **options))


@pytest.fixture(params=[ManagementClient, Awaited], ids=["sync", "async"])
def client_of(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Return a function that makes a client of a fake server."""
    return lambda server, keys=None: request.param(URL, keys, transport=server.transport)


@pytest.fixture
def server() -> FakeTorchServe:
    server = FakeTorchServe()
    server.add("bot", "1.0", FakeVersion("bot.mar", is_continuous=True))
    server.add("bot", "2.0", FakeVersion("bot2.mar", is_continuous=True))
    server.add("embedder", "1.0", FakeVersion("embedder", workers=3, pending=7))
    return server


@pytest.fixture
def client(client_of: Callable[..., Any], server: FakeTorchServe) -> Any:
    return client_of(server)


def test_all_pages_are_listed(client, server):
    server.page_size = 1
    assert client.list() == (ModelSummary("bot", "bot.mar"), ModelSummary("embedder", "embedder"))


def test_a_version_is_described_with_its_workers_and_its_queue(client):
    status = client.describe("embedder")
    assert (status.name, status.version, status.is_default, status.is_continuous) == ("embedder", "1.0", True, False)
    assert (status.min_workers, status.max_workers, status.batch_size, status.max_batch_delay_ms) == (3, 3, 8, 50)
    assert (status.pending_requests, status.queue_room) == (7, 993)
    assert status.workers[2] == WorkerStatus("9002", 102, True, datetime(2020, 1, 2, 3, 4, 5, 678000, UTC))
    assert status.is_ready


def test_versions_tell_the_default(client):
    assert [(one.version, one.is_default) for one in client.versions("bot")] == [("1.0", True), ("2.0", False)]
    assert not client.describe("bot", "2.0").is_default
    client.set_default("bot", "2.0")
    assert client.describe("bot", "2.0").is_default


def test_a_model_comes_scales_and_goes(client, server):
    server.store["new.mar"] = ("1.0", FakeVersion(""))
    registered = client.register("new.mar", "a b", workers=2)
    assert (registered.name, registered.version, registered.is_default) == ("a b", "1.0", True)
    client.scale_workers("a b", "1.0", 4)
    assert [request for request in server.requests if not request.startswith("GET")] == [
        "POST /models?url=new.mar&model_name=a+b&initial_workers=2&synchronous=false",
        "PUT /models/a%20b/1.0?min_worker=4&max_worker=4&synchronous=false",
    ]
    assert client.describe("a b").max_workers == 4
    client.unregister("a b", "1.0")
    assert "a b" not in server.models


def test_a_name_that_is_not_given_is_found_out(client, server):
    server.store["new.mar"] = ("3.0", FakeVersion(""))
    registered = client.register("new.mar")
    assert (registered.name, registered.version) == ("unnamed", "3.0")


def test_waiting_is_told_of_and_ends_with_what_is_raised(client, server):
    server.store["slow.mar"] = ("1.0", FakeVersion(""))
    server.failing.add("slow.mar")
    told = []

    def finish(status):
        told.append((status.num_ready, status.min_workers))
        server.models["slow"]["1.0"].loadable = 1

    assert client.register("slow.mar", "slow", on_status=finish).is_ready
    assert told == [(0, 1)]

    def give_up(status):
        raise LoadFailed("the log says more")

    with pytest.raises(LoadFailed, match="the log says more"):
        client.scale_workers("slow", "1.0", 3, on_status=give_up)
    assert client.describe("slow").max_workers == 1


def test_what_cannot_be_loaded_is_removed_again(client, server):
    server.store["broken.mar"] = ("1.0", FakeVersion(""))
    server.failing.add("broken.mar")
    with pytest.raises(LoadFailed):
        client.register("broken.mar", "broken")
    assert "broken" not in server.models


def test_a_worker_is_asked_on_request_only(client, server):
    server.models["embedder"]["1.0"].on_ask = lambda: {"parked": False}
    client.describe("embedder")
    assert not any("customized" in request for request in server.requests)
    assert client.ask_a_worker("embedder", "1.0") == {"parked": False}


@pytest.mark.parametrize(
    ("ask", "kind", "words"),
    [
        (lambda client: client.describe("nope"), ModelNotFound, "Model not found: nope; `marquee models list`"),
        (lambda client: client.describe("bot", "9"), ModelNotFound, "9 does not exist for model: bot"),
        (lambda client: client.unregister("bot", "1.0"), Refused, "default version.*`marquee models default`"),
        (lambda client: client.register("absent.mar", "x"), Refused, "finds no archive absent.mar: put it into its model store"),
        (lambda client: client.register("https://x.example/a.mar", "x"), Refused, "allowed URL.*allowed_urls in the server's config"),
        (lambda client: client.register("taken.mar", "bot"), Conflict, "1.0 is already registered.*`marquee archive --version"),
        (lambda client: client.register("broken.mar", "x"), LoadFailed, "x 1.0: a worker died while it loaded"),
        (lambda client: client.register("http://x.example/a.mar", "x"), UsageError, "over https only"),
        (lambda client: client.register("file:///etc/passwd", "x"), UsageError, "over https only"),
    ],
)
def test_refusals_say_what_to_do(client, server, ask, kind, words):
    server.store |= {"taken.mar": ("1.0", FakeVersion("")), "broken.mar": ("1.0", FakeVersion(""))}
    server.failing.add("broken.mar")
    with pytest.raises(kind, match=words):
        ask(client)


@pytest.mark.parametrize("ask", [lambda client: client.register("bot.mar", "bot"), lambda client: client.unregister("bot", "2.0")])
def test_the_model_api_being_off_is_named(client, server, ask):
    server.has_model_api = False
    with pytest.raises(ModelApiOff, match="--model-api.*enable_model_api=true"):
        ask(client)


def test_the_model_api_is_asked_for_without_changing_anything(client, server):
    client.check_model_api()
    server.has_model_api = False
    with pytest.raises(ModelApiOff):
        client.check_model_api()
    assert server.requests == ["POST /models"] * 2


def test_no_server_is_named_with_its_address(client_of):
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    server = FakeTorchServe()
    server.answer = refuse  # type: ignore[method-assign]
    with pytest.raises(Unreachable, match="http://127.0.0.1:8081.*Connection refused"):
        client_of(server).list()


def test_an_answer_that_is_not_torchserves_is_an_error_too(client_of):
    server = FakeTorchServe()
    server.answer = lambda request: httpx.Response(502, text="<html>")  # type: ignore[method-assign]
    with pytest.raises(ManagementError, match="502: Bad Gateway"):
        client_of(server).describe("bot")


@pytest.mark.parametrize("text", ["<html>", "[]", "{}", '"bot"', "null", '[{"id": "7"}]', '{"object": "list", "data": []}'])
@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.list(),
        lambda client: client.describe("bot"),
        lambda client: client.versions("bot"),
    ],
)
def test_another_server_is_told_from_torchserve(client_of, ask, text):
    server = FakeTorchServe()
    server.answer = lambda request: httpx.Response(200, text=text)  # type: ignore[method-assign]
    with pytest.raises(Refused, match="what answers at http://127.0.0.1:8081/ is no TorchServe: name its .* --url"):
        ask(client_of(server))


@pytest.fixture
def locked(server: FakeTorchServe, tmp_path: Path) -> FakeTorchServe:
    server.key_file = tmp_path / "key_file.json"
    server.write_keys("m0")
    return server


def test_a_key_is_sent_and_read_afresh_when_it_is_refused(client_of, locked):
    def renew_before_answering(request: httpx.Request) -> httpx.Response:
        locked.valid_key = "m1"
        locked.write_keys("m1")
        return FakeTorchServe.answer(locked, request)

    locked.answer = renew_before_answering
    assert client_of(locked, KeyFile(locked.key_file)).describe("bot").version == "1.0"
    assert locked.requests == ["GET /models/bot"] * 2


def test_an_expired_key_is_renewed_once(client_of, locked):
    client = client_of(locked, KeyFile(locked.key_file))
    locked.valid_key = "only the server knows it"
    assert client.describe("bot").version == "1.0"
    assert client.list()
    assert locked.num_renewals == 1


@pytest.mark.parametrize("keys", [None, "absent.json"])
def test_a_missing_key_is_said_to_be_missing(client_of, locked, tmp_path, keys):
    with pytest.raises(Unauthorized, match="--key-file"):
        client_of(locked, keys and KeyFile(tmp_path / keys)).list()


def test_keys_that_open_nothing_are_tried_once(client_of, locked, tmp_path):
    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"management": {"key": "x"}, "API": {"key": "y"}}')
    with pytest.raises(Unauthorized):
        client_of(locked, KeyFile(foreign)).list()
    assert [request.split("?")[0] for request in locked.requests] == ["GET /models", "GET /token"]


@pytest.mark.parametrize(
    "text",
    ['{"management": {"key": "abc', "[1]", '"management"', "null", '{"management": "x"}', '{"management": {"key": 7}}', "\N{SNOWMAN}"],
)
def test_a_half_written_key_file_has_no_key(tmp_path, text):
    path = tmp_path / "key_file.json"
    path.write_text(text)
    assert KeyFile(path).key("management") is None
