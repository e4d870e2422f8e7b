"""What crosses between TorchServe and a handler, through TorchServe's own reader, context and writer."""

from __future__ import annotations

from typing import Any

import pytest
from ts.context import Context, RequestProcessor
from ts.protocol import otf_message_handler

from handlers.frontend import EVENT_STREAM, Incoming, Reply, read_batch, write_replies
from tests.fakes import ResponseMessage, parse_response

HEADERS = {"url_path": "v1/completions", "Content-Length": "2", "X-User": "Ann"}


def context_of(*headers: dict[str, Any]) -> Context:
    context = Context("tiny", "/nowhere", {}, 8, None, "0.12")
    context.request_ids = {index: f"id{index}" for index in range(len(headers))}
    context.request_processor = [RequestProcessor(dict(header)) for header in headers]
    return context


def read_one(parameters: dict[str, Any], headers: dict[str, Any] = HEADERS) -> Incoming:
    (incoming,) = read_batch([parameters], context_of(headers))
    return incoming


def written(*replies: Reply | None) -> list[ResponseMessage]:
    """Return what the frontend reads of ``replies``."""
    context = context_of(*[HEADERS] * len(replies))
    bodies = write_replies(replies, context)
    return parse_response(bytes(otf_message_handler.create_predict_response(bodies, context.request_ids, "", 200, context=context)))


class TestRead:
    def test_a_request_as_the_frontend_sends_it(self) -> None:
        part = {"body": {"content-type": "application/json"}}

        incoming = read_one({"body": bytearray(b"{}")}, HEADERS | part)

        want = {"url_path": "v1/completions", "content-length": "2", "x-user": "Ann"}
        assert incoming == Incoming("id0", "v1/completions", b"{}", "application/json", want)

    @pytest.mark.parametrize(("path", "route"), [(None, ""), ("", ""), ("/v1/models/", "v1/models"), ("v1/models", "v1/models")])
    def test_the_route_is_the_path_below_the_prediction_url(self, path: str | None, route: str) -> None:
        assert read_one({}, {} if path is None else {"url_path": path}).route == route

    def test_no_payload_is_not_an_empty_one(self) -> None:
        assert read_one({}).body is None
        assert read_one({"body": b""}).body == b""

    def test_a_form_has_a_payload_that_means_nothing(self) -> None:
        assert read_one({'{"inputs": "x"}': b""}).body == b""

    def test_the_fields_body_and_data_carry_the_payload(self) -> None:
        assert read_one({"data": b"x"}).body == b"x"
        assert read_one({"other": b"y", "body": b"x"}).body == b"x"

    @pytest.mark.parametrize(
        ("value", "body"), [({"a": [1]}, b'{"a": [1]}'), ("grüß", "grüß".encode()), (b"x", b"x"), (bytearray(b"x"), b"x")]
    )
    def test_what_the_frontend_decoded_is_encoded_again(self, value: Any, body: bytes) -> None:
        assert read_one({"body": value}).body == body

    def test_a_client_cannot_break_a_batch_with_a_header_of_a_parameters_name(self) -> None:
        assert read_one({"body": b"x"}, {"body": "surprise", "Content-Type": "text/plain"}).content_type == "text/plain"


class TestWrite:
    def test_a_plain_response_has_a_status_and_headers_and_no_stream_flag(self) -> None:
        (message,) = written(Reply(b"no", status=429, headers={"Retry-After": "1"}))

        assert message == ResponseMessage("id0", 429, {"content-type": "application/json", "Retry-After": "1"}, b"no")

    @pytest.mark.parametrize(("more", "flag"), [(True, "true"), (False, "false")])
    def test_a_message_of_a_stream_says_whether_more_follows(self, more: bool, flag: str) -> None:
        (message,) = written(Reply(b"data", more=more, content_type=EVENT_STREAM))

        assert message == ResponseMessage("id0", 200, {"content-type": EVENT_STREAM, "ts_stream_next": flag}, b"data")

    def test_a_request_without_a_reply_stays_queued(self) -> None:
        first, last = written(Reply(b"a", more=True), None, Reply(b"c"))

        assert (first.request_id, first.body, last.request_id, last.body) == ("id0", b"a", "id2", b"c")
        assert "ts_stream_next" not in last.headers

    def test_there_may_be_nothing_to_say(self) -> None:
        assert written(None, None) == []
        assert written() == []
