"""Messages of the frontend, byte for byte as TorchServe's own reader and writer understand them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ts.context import Context
from ts.protocol import otf_message_handler
from ts.service import Service

from handlers.frontend import EVENT_STREAM, Incoming, Reply, read_batch, write_replies
from handlers.frontend_messages import RECEIVE_BYTES, MessageReader, write_message
from tests.fakes import predict_message

HEADERS = {"url_path": "v1/completions", "Content-Length": "2", "X-User": "Ann", "Content-Type": "application/json"}
OWN_REQUESTS, OWN_READ = otf_message_handler._retrieve_inference_msg, otf_message_handler._retrieve_buffer
Shown = tuple[str, dict[str, str], bytes]


@pytest.fixture(autouse=True)
def torchserves_own_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otf_message_handler, "_retrieve_inference_msg", OWN_REQUESTS)
    monkeypatch.setattr(otf_message_handler, "_retrieve_buffer", OWN_READ)
    monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", "false")


@pytest.fixture
def connection() -> Iterator[Any]:
    worker, frontend = socket.socketpair()
    with worker, frontend:
        yield worker, frontend


class Pieces:
    """A connection whose bytes come in pieces of the given sizes."""

    def __init__(self, data: bytes, sizes: Sequence[int] = ()) -> None:
        self._data, self._sizes = data, list(sizes)
        self.num_calls = 0

    def recv(self, length: int) -> bytes:
        self.num_calls += 1
        size = self._sizes.pop() if self._sizes else length
        piece, self._data = self._data[:size], self._data[size:]
        return piece


def read_message(reader: MessageReader, connection: Any) -> list[Incoming]:
    assert reader.read(connection, 1) == b"I"
    return reader.read_requests(connection)


def read_by_torchserve(data: bytes) -> list[Incoming]:
    """Return what a handler makes of a message after TorchServe's reader and service."""
    _, message = otf_message_handler.retrieve_msg(Pieces(data))
    processors, parameters, ids = Service.retrieve_data_for_inference(message)
    context = Context("tiny", "/nowhere", {}, 8, None, "0.12")
    context.request_ids, context.request_processor = ids, processors
    return read_batch(parameters, context)


texts = st.text(max_size=8)
shown = st.tuples(st.sampled_from("abc"), st.dictionaries(st.sampled_from(["url_path", "X", "content-type"]), texts), st.binary(max_size=9))
messages = st.lists(st.lists(shown, max_size=3, unique_by=lambda request: request[0]), min_size=1, max_size=4)


@given(batches=messages, sizes=st.lists(st.integers(1, 40), max_size=30))
def test_any_messages_in_any_pieces_read_as_torchserve_reads_them(batches: list[list[Shown]], sizes: list[int]) -> None:
    reader, encoded = MessageReader(), [predict_message(batch) for batch in batches]
    connection = Pieces(b"".join(encoded), sizes)

    for data in encoded:
        assert read_message(reader, connection) == read_by_torchserve(data)


def test_a_request_that_is_shown_again_is_not_parsed_again() -> None:
    first = predict_message([("a", HEADERS, b"{}"), ("b", HEADERS, b"")])
    again = predict_message([("b", HEADERS, b""), ("a", HEADERS, b"")])
    reader, connection = MessageReader(), Pieces(first + again + again)

    read_message(reader, connection)
    second, third = read_message(reader, connection), read_message(reader, connection)

    assert [incoming.id for incoming in second] == ["b", "a"]
    assert [old is new for old, new in zip(second, third, strict=True)] == [True, True]
    assert connection.num_calls == 1


def test_a_request_that_has_gone_is_forgotten() -> None:
    batches = [[("a", HEADERS, b"")], [("b", HEADERS, b"")], [("a", {}, b"")]]
    reader, connection = MessageReader(), Pieces(b"".join(map(predict_message, batches)))

    assert [read_message(reader, connection)[0].headers for _ in batches][-1] == {}


def test_a_big_body_comes_whole(connection: Any) -> None:
    worker, frontend = connection
    big = bytes(range(256)) * (RECEIVE_BYTES // 128)
    sender = threading.Thread(target=lambda: frontend.sendall(predict_message([("a", HEADERS, big)]) * 2))
    sender.start()
    reader = MessageReader()

    assert [read_message(reader, worker)[0].body for _ in range(2)] == [big, big]
    sender.join()


def test_torchserves_own_parser_may_read_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otf_message_handler, "_retrieve_buffer", MessageReader().read)
    connection = Pieces(predict_message([("a", HEADERS, b"{}")]) * 2)

    for _ in range(2):
        _, (request,) = otf_message_handler.retrieve_msg(connection)
        assert (request["requestId"], request["parameters"][0]["value"]) == (b"a", b"{}")
    assert connection.num_calls == 1


def test_the_worker_ends_when_the_frontend_does() -> None:
    reader, connection = MessageReader(), Pieces(b"abc")

    assert reader.read(connection, 2) == b"ab"
    with pytest.raises(SystemExit):
        reader.read(connection, 2)


replies = st.builds(
    Reply,
    body=st.binary(max_size=20),
    more=st.sampled_from([None, True, False]),
    status=st.sampled_from([200, 400, 429]),
    content_type=st.sampled_from(["application/json", EVENT_STREAM]),
    headers=st.dictionaries(st.sampled_from(["Retry-After", "X-Grüße"]), texts),
)


@given(st.lists(st.none() | replies, max_size=4))
def test_answers_are_what_torchserve_writes(answers: list[Reply | None]) -> None:
    from ts.context import RequestProcessor

    batch = [Incoming(f"id{index}") for index in range(len(answers))]
    context = Context("tiny", "/nowhere", {}, 8, None, "0.12")
    context.request_ids = {index: incoming.id for index, incoming in enumerate(batch)}
    context.request_processor = [RequestProcessor({}) for _ in batch]
    bodies = write_replies(answers, context)
    own = otf_message_handler.create_predict_response(bodies, context.request_ids, "Prediction success", 200, context=context)

    assert write_message(batch, answers) == bytes(own)
