"""What goes wrong in a stage stays with the requests it was given."""

from __future__ import annotations

import logging

import pytest

from handlers.errors import InvalidRequest
from handlers.requests import Request
from handlers.stages import run_observer, run_stage


def test_a_stage_sees_only_requests_that_have_not_failed() -> None:
    good, bad = Request(), Request(error=InvalidRequest("no"))
    seen: list[Request] = []

    run_stage(seen.extend, [good, bad])

    assert seen == [good]


def test_a_stage_without_live_requests_is_not_called() -> None:
    def stage(requests: list[Request]) -> None:
        raise AssertionError("called")

    run_stage(stage, [])
    run_stage(stage, [Request(error=InvalidRequest("no"))])


def test_a_request_error_is_the_answer() -> None:
    def refuse(requests: list[Request]) -> None:
        raise InvalidRequest("not today", param="prompt")

    request = Request()
    run_stage(refuse, [request])

    assert request.error is not None
    assert (request.error.status, request.error.message, request.error.param) == (400, "not today", "prompt")


def test_anything_else_is_a_500_whose_details_are_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    def fail(requests: list[Request]) -> None:
        raise RuntimeError("secret detail")

    request = Request()
    run_stage(fail, [request])

    assert request.error is not None and request.error.status == 500
    assert "secret" not in str(request.error.body())
    assert "secret detail" in caplog.text


def test_a_request_that_failed_itself_keeps_its_own_error() -> None:
    def fail(requests: list[Request]) -> None:
        requests[0].fail(418, "teapot")
        raise RuntimeError

    first, second = Request(), Request()
    run_stage(fail, [first, second])

    assert first.error is not None and second.error is not None
    assert (first.error.status, second.error.status) == (418, 500)


def test_an_observer_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(request: Request) -> None:
        raise RuntimeError("broken counter")

    request = Request()
    with caplog.at_level(logging.ERROR):
        run_observer(fail, request)

    assert request.error is None
    assert "broken counter" in caplog.text
