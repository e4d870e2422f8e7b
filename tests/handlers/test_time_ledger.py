"""Times of one answer: whatever happens in whatever order, the parts add up to the whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.requests import Request
from handlers.time_ledger import PARTS, Part, TimeLedger


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spend(ledger: TimeLedger, clock: Clock, seconds: float, part: Part) -> None:
    clock.now_s += seconds
    ledger.book(part)


def test_an_answer_goes_through_its_parts_in_order(clock: Clock) -> None:
    ledger = TimeLedger(clock)
    spend(ledger, clock, 1.0, "tokenize")
    clock.now_s += 5.0
    ledger.book_engine(has_tokens=True, queue_s=2.0)
    spend(ledger, clock, 0.5, "detokenize")
    clock.now_s += 4.0
    ledger.book_engine(has_tokens=True, queue_s=0.0)
    spend(ledger, clock, 0.5, "detokenize")
    spend(ledger, clock, 0.25, "send")

    assert ledger.parts == {"tokenize": 1.0, "queue": 2.0, "prefill": 3.0, "decode": 4.0, "detokenize": 1.0, "send": 0.25}
    assert (ledger.total_s, ledger.first_token_s, ledger.generation_s) == (clock.now_s - 1000.0, 6.0, 5.0)
    assert ledger.server_timing() == (
        "tokenize;dur=1000.0, queue;dur=2000.0, prefill;dur=3000.0, decode;dur=4000.0, detokenize;dur=1000.0, send;dur=250.0, "
        "total;dur=11250.0"
    )


def test_before_the_first_token_a_request_is_in_the_queue(clock: Clock) -> None:
    ledger = TimeLedger(clock)
    clock.now_s += 3.0
    ledger.book_engine(has_tokens=False, queue_s=0.0)

    assert ledger.parts == {"queue": 3.0} and ledger.first_token_s is None


def test_the_engine_cannot_have_waited_longer_than_the_request_was_there(clock: Clock) -> None:
    ledger = TimeLedger(clock)
    clock.now_s += 1.0
    ledger.book_engine(has_tokens=True, queue_s=9.0)

    assert ledger.parts == {"queue": 1.0, "prefill": 0.0}


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from([*PARTS, "engine"]), st.booleans(), st.floats(0, 100))))
def test_the_parts_add_up_to_the_time_since_the_start(bookings: list[tuple[float, str, bool, float]]) -> None:
    clock = Clock()
    ledger = TimeLedger(clock)
    for seconds, part, has_tokens, queue_s in bookings:
        clock.now_s += seconds
        if part == "engine":
            ledger.book_engine(has_tokens=has_tokens, queue_s=queue_s)
        else:
            ledger.book(part)  # type: ignore[arg-type]

    assert ledger.total_s == pytest.approx(clock.now_s - 1000.0, abs=1e-9)
    assert all(seconds >= 0 for seconds in ledger.parts.values())


def test_choices_share_the_past_and_not_the_future(clock: Clock) -> None:
    request = Request(n=2, times=TimeLedger(clock))
    spend(request.times, clock, 1.0, "tokenize")
    first, second = request.choices()
    spend(first.times, clock, 2.0, "queue")
    spend(second.times, clock, 1.0, "decode")

    assert first.times.parts == {"tokenize": 1.0, "queue": 2.0}
    assert second.times.parts == {"tokenize": 1.0, "decode": 3.0}
