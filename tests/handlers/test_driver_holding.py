"""Answers that come whole are held back for a while: then they are one response, with its own status and its times."""

from __future__ import annotations

import json
import re
import time

import pytest

from handlers.driver import Cadence
from handlers.engine.client import Start
from handlers.frontend import Incoming, Reply
from handlers.time_ledger import PARTS
from tests.handlers.driver_rig import ROUTE, Rig, completion, shown

HOLDING = Cadence(flush_s=0.0, message_s=0.0, heartbeat_s=0.0, poll_s=0.0, hold_s=3600.0)


@pytest.fixture
def rig() -> Rig:
    return Rig(HOLDING)


def again(request_id: str = "a", **params: object) -> Incoming:
    """A request that was held, as the frontend shows it again: with its payload."""
    return Incoming(request_id, ROUTE, completion(**params))


def step(rig: Rig, *batch: Incoming) -> Reply | None:
    return rig.step(*batch)[0]


def release(rig: Rig) -> None:
    rig.driver._live["a"].held_until_s = 1e-9


def parts_ms(reply: Reply) -> dict[str, float]:
    return {name: float(value) for name, value in re.findall(r"(\w+);dur=([\d.]+)", reply.headers["Server-Timing"])}


def test_an_answer_in_time_is_one_complete_response(rig: Rig) -> None:
    assert step(rig, again()) is None
    assert step(rig, again()) is None
    rig.engine.say("a", "x", "stop", start=Start(queue_s=0.0, num_cached_tokens=0))

    reply = step(rig, again())

    assert reply is not None and (reply.more, reply.status) == (None, 200)
    assert json.loads(reply.body)["choices"][0]["text"] == "x"
    assert len(rig.engine.added) == 1 and rig.driver._live == {}


def test_it_says_where_its_time_went(rig: Rig) -> None:
    step(rig, again())
    rig.engine.say("a", "x", "stop", start=Start(queue_s=0.0, num_cached_tokens=0))
    reply = step(rig, again())

    assert reply is not None
    parts = parts_ms(reply)
    total = parts.pop("total")
    assert tuple(parts) == tuple(part for part in PARTS if part != "decode")
    assert total == pytest.approx(sum(parts.values()), abs=0.05 * len(PARTS))  # they are rounded
    assert rig.recorded[0].times.total_s == pytest.approx(total / 1000, abs=1e-4)


@pytest.mark.parametrize(("reason", "status", "code"), [("expired", 429, "queue_timeout"), ("error", 500, None)])
def test_a_late_failure_has_its_status(rig: Rig, reason: str, status: int, code: str | None) -> None:
    step(rig, again())
    rig.engine.say("a", "", reason, error="lost")

    reply = step(rig, again())

    assert reply is not None and (reply.more, reply.status) == (None, status)
    assert json.loads(reply.body)["error"]["code"] == code


def test_an_engine_that_cannot_be_asked_is_a_500(rig: Rig) -> None:
    step(rig, again())
    rig.engine.failure = ConnectionError("secret")

    reply = step(rig, again())

    assert reply is not None and (reply.more, reply.status) == (None, 500) and b"secret" not in reply.body


def test_an_answer_that_takes_longer_is_opened_and_goes_on_in_several_messages(rig: Rig) -> None:
    step(rig, again())
    rig.engine.say("a", "x")
    step(rig, again())
    release(rig)

    first = step(rig, again())
    heartbeat = step(rig, shown("a"))
    rig.engine.say("a", "y", "stop")
    last = step(rig, shown("a"))

    assert first is not None and (first.body, first.more) == (b"", True)
    assert heartbeat is not None and (heartbeat.body, heartbeat.more) == (b"", True)
    assert last is not None and last.more is False and "Server-Timing" not in last.headers
    assert json.loads(last.body)["choices"][0]["text"] == "xy"


def test_the_first_of_several_choices_does_not_end_the_hold(rig: Rig) -> None:
    step(rig, again(n=2))
    rig.engine.say("a", "x", "stop")
    assert step(rig, again(n=2)) is None
    rig.engine.say("a#1", "y", "stop")

    reply = step(rig, again(n=2))

    assert reply is not None and reply.more is None
    assert [choice["text"] for choice in json.loads(reply.body)["choices"]] == ["x", "y"]


def test_who_leaves_is_noticed_once_the_hold_is_over(rig: Rig) -> None:
    step(rig, again())
    rig.engine.say("a", "abc")
    step(rig, again())
    release(rig)
    step(rig, again())

    rig.step()

    assert rig.engine.cancelled == ["a"]
    assert [(request.finish_reason, request.num_wasted_tokens) for request in rig.recorded] == [("cancelled", 3)]


@pytest.mark.parametrize("incoming", [again(stream=True), again(prompt="x" * 20_000)], ids=["stream", "long"])
def test_streams_and_long_bodies_are_not_held(rig: Rig, incoming: Incoming) -> None:
    reply = step(rig, incoming)

    assert reply is not None and (reply.body, reply.more) == (b"", True)


def test_a_refusal_comes_at_once(rig: Rig) -> None:
    reply = step(rig, Incoming("a", ROUTE, b"{"))

    assert reply is not None and (reply.more, reply.status) == (None, 400)


def test_without_a_time_to_hold_nothing_is_held() -> None:
    assert Rig().admit().more is True


def test_of_several_choices_the_last_to_end_tells_the_times(rig: Rig) -> None:
    step(rig, again(n=2))
    rig.engine.say("a#1", "x", "stop")
    step(rig, again(n=2))
    time.sleep(0.001)  # times are told in tenths of a millisecond
    rig.engine.say("a", "y", "stop")
    reply = step(rig, again(n=2))

    assert reply is not None
    assert reply.headers["Server-Timing"] == rig.recorded[0].times.server_timing() != rig.recorded[1].times.server_timing()
