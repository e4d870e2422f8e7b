"""The error tree's bodies, statuses and headers."""

from __future__ import annotations

import pytest

from handlers.errors import Failed, IntegrityError, InvalidRequest, MarqueeError, NotFound, Overloaded, RequestError, Unavailable
from tests.fakes import every_refusal


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("m"), 400, "invalid_request_error"),
        (NotFound("m"), 404, "invalid_request_error"),
        (Overloaded("m"), 429, "rate_limit_error"),
        (Unavailable("m"), 503, "server_error"),
        (Failed("m"), 500, "server_error"),
    ],
)
def test_the_class_decides_status_and_type(error: RequestError, status: int, kind: str) -> None:
    assert error.status == status
    assert error.body()["error"]["type"] == kind
    assert error.body()["error"]["message"] == str(error) == "m"


def test_a_body_is_an_openai_error_object() -> None:
    assert InvalidRequest("m", param="p", code="c").body() == {
        "error": {"message": "m", "type": "invalid_request_error", "param": "p", "code": "c"}
    }


def test_the_openai_client_reads_the_body() -> None:
    import httpx
    from openai import BadRequestError

    error = InvalidRequest("m", param="p", code="c").body()["error"]
    raised = BadRequestError("m", response=httpx.Response(400, request=httpx.Request("POST", "http://x")), body=error)

    assert (raised.param, raised.code, raised.type) == ("p", "c", "invalid_request_error")


def test_an_author_may_override_the_status() -> None:
    assert InvalidRequest("m", status=422).status == 422
    assert InvalidRequest("m").status == 400


def test_what_passes_says_when_to_come_back() -> None:
    assert Overloaded("m", retry_after_s=7).headers == {"Retry-After": "7"}
    assert Unavailable("m").headers == {"Retry-After": "1"}
    assert all(not error.headers for error in every_refusal() if not isinstance(error, Overloaded | Unavailable))


def test_one_tree() -> None:
    assert all(isinstance(error, MarqueeError) for error in every_refusal())
    assert issubclass(IntegrityError, MarqueeError)
    assert not issubclass(IntegrityError, RequestError)
