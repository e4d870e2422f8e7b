"""Injected faults: who fails, who goes on, and that nothing bad is left in the cache."""

import pytest
from engine_fakes import FakeRunner, continuation
from engine_rig import EngineRig, greedy

from handlers.engine.engine import CRASHED, INVALID_LOGITS, PROMPT_FAILED

FAILURES = [RuntimeError("CUDA error: device-side assert"), ValueError("shapes differ")]


def test_a_sequence_with_invalid_logits_ends_alone():
    rig = EngineRig(FakeRunner(poison=30))
    rig.add("good", [1, 2])
    rig.add("bad", [30])
    outcome = rig.finish()
    assert (outcome.last["bad"].finish_reason, outcome.last["bad"].error) == ("error", INVALID_LOGITS)
    assert outcome.token_ids["good"] == continuation([1, 2], 10, frozenset())


def test_what_gave_invalid_logits_is_not_shared():
    rig = EngineRig(FakeRunner(poison=30))
    prompt = [30, 1, 2, 3, 4, 5, 6, 7, 8]
    rig.add("bad", prompt)
    assert rig.finish().last["bad"].error == INVALID_LOGITS
    rig.runner.poison = None
    rig.add("again", prompt)
    outcome = rig.finish()
    assert outcome.starts["again"].num_cached_tokens == 0
    assert outcome.token_ids["again"] == continuation(prompt, 17, frozenset())


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_when_decoding_fails_its_sequences_fail_and_waiting_ones_run(failure):
    rig = EngineRig(FakeRunner(failures={2: failure}), max_running=1)
    rig.add("running", [1, 2])
    rig.add("waiting", [3, 4], greedy(3))
    rig.step()
    with pytest.raises(type(failure)):
        rig.engine.step()
    rig.outcome.take(rig.engine.recover())
    outcome = rig.finish()
    assert outcome.last["running"].error == CRASHED
    assert outcome.token_ids["waiting"] == continuation([3, 4], 5, frozenset())


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_when_a_prompt_fails_it_fails_alone(failure, caplog):
    rig = EngineRig(FakeRunner(failures={3: failure}))
    rig.add("running", [1, 2], greedy(6))
    rig.step()
    rig.step()
    rig.add("too much", [5] * 8)
    outcome = rig.finish()
    assert outcome.last["too much"].error == PROMPT_FAILED
    assert outcome.token_ids["running"] == continuation([1, 2], 8, frozenset())
    assert "without the prompts" in caplog.text
    rig.add("too much again", [5] * 8)
    assert rig.finish().token_ids["too much again"] == continuation([5] * 8, 16, frozenset())


def test_when_the_step_fails_without_the_prompts_too_all_in_it_fail():
    rig = EngineRig(FakeRunner(failures={2: RuntimeError("boom"), 3: RuntimeError("boom")}))
    rig.add("running", [1, 2])
    rig.step()
    rig.add("prompt", [5, 6])
    outcome = rig.finish()
    assert {name: event.error for name, event in outcome.last.items()} == {"running": CRASHED, "prompt": CRASHED}


def test_a_preempted_sequence_survives_the_crash_of_the_others():
    rig = EngineRig(FakeRunner(num_blocks=4))
    rig.add("a", [1, 2, 3, 4, 5, 6, 7])
    rig.add("b", [8, 9], greedy(12))
    while not rig.engine.stats().preemptions:
        rig.step()
    assert 0 < len(rig.outcome.token_ids["b"]) < 12
    rig.runner.failures[rig.runner.num_steps + 1] = RuntimeError("boom")
    outcome = rig.finish()
    assert outcome.last["a"].error == CRASHED
    assert outcome.token_ids["b"] == continuation([8, 9], 14, frozenset())


def test_nothing_computed_before_a_crash_is_taken_for_computed_after_it():
    rig = EngineRig(FakeRunner(failures={4: RuntimeError("boom")}))
    prompt = list(range(9))
    rig.add("before", prompt, greedy(2))
    rig.finish()
    rig.add("crashed", [7, 7])
    rig.finish()
    rig.add("after", prompt, greedy(2))
    outcome = rig.finish()
    assert outcome.starts["after"].num_cached_tokens == 0
    assert outcome.token_ids["after"] == outcome.token_ids["before"]


def test_a_runner_that_cannot_be_reset_does_not_stop_recovery(caplog):
    class LostRunner(FakeRunner):
        def reset(self) -> None:
            raise RuntimeError("device lost")

    rig = EngineRig(LostRunner(failures={1: RuntimeError("boom")}))
    rig.add("a", [1])
    rig.step()
    assert rig.outcome.last["a"].error == CRASHED
    assert "device lost" in caplog.text


def test_a_fault_outside_the_model_fails_everybody_rather_than_going_round_in_circles(monkeypatch):
    rig = EngineRig()
    rig.add("a", [1])
    rig.add("b", [2])
    with monkeypatch.context() as patch:
        patch.setattr(rig.engine._scheduler, "schedule", lambda now_s: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            rig.engine.step()
    rig.outcome.take(rig.engine.recover())
    assert rig.outcome.count("error") == 2
    rig.add("c", [1, 2])
    assert rig.finish().token_ids["c"] == continuation([1, 2], 10, frozenset())


def test_who_waits_behind_a_slow_step_past_the_deadline_expires():
    clock = iter(range(1000)).__next__  # every look at the clock takes a second
    rig = EngineRig(max_running=1, clock=lambda: float(clock()))
    rig.add("slow", [1], greedy(4))
    rig.add("hurried", [2], max_queue_s=3.0)
    outcome = rig.finish()
    assert (outcome.last["slow"].finish_reason, outcome.last["hurried"].finish_reason) == ("length", "expired")
