"""Who is let in: what can never run is refused for good, what has no room now for a while."""

import pytest

from handlers.engine.admission import Admission, EngineLimits
from handlers.engine.client import Event
from handlers.errors import InvalidRequest, Overloaded
from handlers.requests import SamplingParams

LIMITS = EngineLimits(max_model_len=10, vocab_size=32, max_running=1, max_waiting=2, max_queued_tokens=20)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_prompt_that_leaves_room_for_a_token_is_accepted():
    LIMITS.check([0, 31] * 4, SamplingParams(max_tokens=100))


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "param", "code"),
    [
        ([1], 0, "max_tokens", None),
        ([], 1, None, None),
        ([1] * 10, 1, None, "context_length_exceeded"),
        ([32], 1, None, None),
        ([-1], 1, None, None),
    ],
)
def test_what_can_never_run_is_the_clients_mistake(prompt, max_tokens, param, code):
    with pytest.raises(InvalidRequest) as refusal:
        LIMITS.check(prompt, SamplingParams(max_tokens=max_tokens))
    assert (refusal.value.param, refusal.value.code) == (param, code)


def test_places_are_taken_from_admission_to_the_terminal_event():
    admission = Admission(LIMITS)
    for name in "abc":
        admission.admit(name, 1)
    for refuse in (admission.check_room, lambda: admission.admit("d", 1)):
        with pytest.raises(Overloaded, match="3 places"):
            refuse()
    admission.note(Event("b", (1,)))
    with pytest.raises(Overloaded):
        admission.admit("d", 1)
    admission.note(Event("b", finish_reason="cancelled"))
    admission.check_room()
    admission.admit("d", 1)
    assert set(admission.live) == {"a", "c", "d"}


def test_prompts_are_queued_until_their_first_token():
    admission = Admission(LIMITS)
    admission.admit("a", 15)
    with pytest.raises(Overloaded, match="15 tokens wait, and with these 6 it would be more than 20"):
        admission.admit("b", 6)
    admission.note(Event("a", (1,)))
    admission.note(Event("a", (2,)))
    admission.admit("b", 20)
    admission.note(Event("b", finish_reason="expired"))
    admission.admit("c", 20)


def test_a_prompt_larger_than_the_queue_waits_alone():
    admission = Admission(LIMITS)
    admission.admit("a", 1000)
    with pytest.raises(Overloaded):
        admission.admit("b", 1)


@pytest.mark.parametrize(("s_per_end", "retry_after_s"), [(0.001, 1), (4.0, 8), (1000.0, 60)])
def test_the_time_to_retry_follows_from_how_fast_others_end(s_per_end, retry_after_s):
    clock = Clock()
    admission = Admission(LIMITS, clock)
    for number in range(200):
        admission.admit(str(number), 1)
        admission.note(Event(str(number), (1,), "stop"))
        clock.now_s += s_per_end
    for name in "abc":
        admission.admit(name, 1)
    admission.note(Event("a", (1,)))
    with pytest.raises(Overloaded) as refusal:
        admission.admit("d", 1)
    assert refusal.value.retry_after_s == retry_after_s


def test_who_is_refused_by_an_engine_that_has_finished_nothing_may_retry_soon():
    admission = Admission(LIMITS)
    for name in "abc":
        admission.admit(name, 1)
    with pytest.raises(Overloaded) as refusal:
        admission.admit("d", 1)
    assert refusal.value.retry_after_s == 1
