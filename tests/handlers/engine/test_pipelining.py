"""A pipelined runner is given the next step before it is known what the one before has sampled, unless that must be known."""

from __future__ import annotations

import pytest
from engine_fakes import FakeDrafter, PipelinedFakeRunner, continuation
from engine_rig import EngineRig, greedy

from handlers.engine.speculation.speculation import Speculation


def late_rows(rig: EngineRig) -> list[list[int | None]]:
    """Of every step, the rows of the step before that its chunks wait for."""
    return [[chunk.late_row for chunk in plan.chunks] for plan in rig.runner.plans]


class SeesPlans(PipelinedFakeRunner):
    """Notes plans as the engine makes them, with what is late in them."""

    def run_after(self, plan, drawn):
        logits = super().run_after(plan, drawn)
        self.plans[-1] = plan
        return logits


@pytest.fixture
def rig() -> EngineRig:
    return EngineRig(SeesPlans())


def test_steps_are_planned_with_tokens_that_have_not_arrived(rig: EngineRig):
    rig.add("a", [1, 2], greedy(4))
    rig.add("b", [2, 1], greedy(3))
    outcome = rig.finish()
    assert late_rows(rig) == [[None, None], [0, 1], [0, 1], [0]]
    assert outcome.token_ids["a"] == continuation([1, 2], 6, frozenset())
    assert outcome.token_ids["b"] == continuation([2, 1], 5, frozenset())


def test_events_are_of_the_step_before(rig: EngineRig):
    rig.add("a", [1, 2], greedy(2))
    assert rig.engine.step() == []
    assert [event.token_ids for event in rig.engine.step()] == [tuple(continuation([1, 2], 3, frozenset()))]
    assert [event.finish_reason for event in rig.engine.step()] == ["length"]
    assert not rig.engine.has_work


def test_a_token_that_ends_a_sequence_is_noticed_a_step_late_and_costs_a_row(rig: EngineRig):
    expected = continuation([5, 9], 60, frozenset([11]))
    assert expected[-1] == 11
    rig.add("a", [5, 9], greedy(60, stop_token_ids=(11,)))
    outcome = rig.finish()
    assert outcome.token_ids["a"] == expected
    assert outcome.last["a"].num_stop_tokens == 1
    assert len(rig.runner.plans) == len(expected) + 1


def test_a_block_that_ends_with_a_late_token_is_shared_under_its_true_hash(rig: EngineRig):
    rig.add("first", [1, 2], greedy(12))
    said = rig.finish().token_ids["first"]
    rig.add("second", [1, 2, *said], greedy(1))
    assert rig.finish().starts["second"].num_cached_tokens == 12


@pytest.mark.parametrize("penalty", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_who_is_penalized_for_what_was_said_waits_for_it(rig: EngineRig, penalty: str):
    rig.add("a", [1, 2], greedy(6, **{penalty: 1.5}))
    rig.finish()
    assert all(rows == [None] for rows in late_rows(rig))


def test_nobody_waits_while_a_prompt_is_read_whose_answer_will_be_penalized(rig: EngineRig):
    rig.add("a", [1, 2], greedy(6))
    rig.step()
    rig.add("penalized", list(range(30)), greedy(1, frequency_penalty=0.5))
    rig.finish()
    assert late_rows(rig) == [[None], [0, None], [0, None], [0, None], [0, None], [None]]


def test_guesses_need_to_know_what_they_follow():
    rig = EngineRig(SeesPlans(), speculation=Speculation(FakeDrafter(3), max_draft_tokens=4, max_rows=16))
    rig.add("a", [1, 2], greedy(12))
    assert rig.finish().token_ids["a"] == continuation([1, 2], 14, frozenset())
    assert all(rows == [None] for rows in late_rows(rig))


def test_one_that_is_cancelled_while_its_step_runs_gets_nothing_more(rig: EngineRig):
    rig.add("a", [1, 2], greedy(9))
    rig.add("b", [2, 1], greedy(9))
    rig.step()
    rig.cancel("a")
    assert rig.finish().token_ids["b"] == continuation([2, 1], 11, frozenset())
    assert not rig.outcome.token_ids["a"]


def test_one_that_is_preempted_while_its_step_runs_is_taken_up_with_the_token_of_that_step():
    rig = EngineRig(SeesPlans(num_blocks=4, block_tokens=4, max_model_len=12))
    rig.add("a", [1, 2, 3], greedy(9))
    rig.add("b", [2, 1, 3], greedy(9))
    outcome = rig.finish()
    assert rig.engine.stats().preemptions > 0
    for name, prompt in (("a", [1, 2, 3]), ("b", [2, 1, 3])):
        assert outcome.token_ids[name] == continuation(prompt, 12, frozenset())


def test_nobody_passes_one_that_is_preempted_while_its_step_runs():
    rig = EngineRig(SeesPlans(num_blocks=4, block_tokens=4, max_model_len=12))
    rig.add("a", [1, 2, 3], greedy(9))
    rig.add("b", [2, 1, 3], greedy(9))
    rig.add("behind", [7], greedy(1))
    rig.finish()
    assert rig.engine.stats().preemptions == 1
    prompts = [chunk.sequence_id for plan in rig.runner.plans for chunk in plan.chunks if chunk.is_prompt or chunk.start == 0]
    assert prompts == ["a", "b", "b", "behind"]


def test_when_memory_runs_out_with_a_step_running_nobody_loses_a_token():
    rig = EngineRig(SeesPlans(failures={4: MemoryError(), 5: MemoryError()}))
    for name in "abcd":
        rig.add(name, [ord(name) - 97, 1], greedy(8))
    outcome = rig.finish()
    assert rig.engine.stats().out_of_memory == 2
    for name in "abcd":
        assert outcome.token_ids[name] == continuation([ord(name) - 97, 1], 10, frozenset())


def test_a_crash_fails_those_of_the_step_that_runs_too(rig: EngineRig):
    rig.add("a", [1, 2], greedy(9))
    rig.step()
    rig.add("late", [7, 7], greedy(2))
    rig.runner.failures = {2: RuntimeError("boom"), 3: RuntimeError("boom")}
    rig.step()
    assert rig.outcome.last["a"].finish_reason == "error"
    rig.add("after", [3, 3], greedy(3))
    assert rig.finish().token_ids["after"] == continuation([3, 3], 5, frozenset())


def test_a_crash_spares_one_that_has_the_name_of_another_in_the_step_that_runs(rig: EngineRig):
    rig.add("a", [1, 2], greedy(9))
    rig.step()
    rig.cancel("a")
    del rig.outcome.last["a"]
    for name in "bcdea":  # the last one waits
        rig.add(name, [3, 4], greedy(3))
    rig.runner.failures = {2: RuntimeError("boom")}
    rig.step()
    assert rig.outcome.last.keys() == set("bcde")
    assert rig.finish().token_ids["a"] == continuation([3, 4], 5, frozenset())
