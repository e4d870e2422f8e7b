"""The engine over a fake model: what a sequence gets, how it ends, and what is told about it."""

import pytest
from engine_fakes import VOCAB_SIZE, FakeRunner, continuation, next_token
from engine_rig import EOS, EngineRig, greedy

from handlers.engine.client import Start
from handlers.engine.engine import Engine
from handlers.errors import InvalidRequest
from handlers.requests import SamplingParams


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_every_live_sequence_takes_part_in_every_step_once_it_is_read():
    rig = EngineRig(prefill_chunk_tokens=4)
    rig.add("running", [1, 2], greedy(20))
    rig.step()
    rig.add("long", list(range(10, 30)))
    for _ in range(4):
        assert [event.sequence_id for event in rig.engine.step()] == ["running"]


def test_the_stop_token_is_reported_and_counted_but_no_text():
    prompt = [5, 6]
    stop = next_token(prompt)
    rig = EngineRig()
    rig.add("a", prompt, greedy(stop_token_ids=(stop,)))
    outcome = rig.finish()
    assert outcome.token_ids["a"] == [stop]
    assert (outcome.last["a"].finish_reason, outcome.last["a"].num_stop_tokens) == ("stop", 1)


def test_eos_ends_a_sequence_unless_it_is_ignored():
    prompt = next([a, b] for a in range(VOCAB_SIZE) for b in range(VOCAB_SIZE) if next_token([a, b]) == EOS)
    rig = EngineRig()
    rig.add("a", prompt, greedy(ignore_eos=False))
    rig.add("b", prompt, greedy(ignore_eos=True))
    outcome = rig.finish()
    assert (outcome.token_ids["a"], outcome.last["a"].finish_reason) == ([EOS], "stop")
    assert (len(outcome.token_ids["b"]), outcome.last["b"].finish_reason) == (8, "length")


def test_the_window_ends_a_sequence_before_max_tokens():
    rig = EngineRig(FakeRunner(max_model_len=10))
    rig.add("a", [1] * 7, greedy(100))
    outcome = rig.finish()
    assert len(outcome.token_ids["a"]) == 3
    assert outcome.last["a"].finish_reason == "length"


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], greedy(), "empty"),
        ([1] * 64, greedy(), "64 tokens"),
        ([1, VOCAB_SIZE], greedy(), "0..31"),
        ([-1], greedy(), "0..31"),
        ([1], SamplingParams(max_tokens=0), "max_tokens"),
    ],
)
def test_what_can_never_run_is_refused(prompt, params, message):
    rig = EngineRig(FakeRunner(max_model_len=64))
    with pytest.raises(InvalidRequest, match=message):
        rig.add("a", prompt, params)
    assert not rig.engine.has_work


def test_max_tokens_must_have_been_decided():
    with pytest.raises(ValueError, match="max_tokens"):
        EngineRig().add("a", [1], SamplingParams())


def test_a_cache_that_does_not_hold_one_sequence_is_no_engine():
    with pytest.raises(ValueError, match="2 blocks of 4 tokens do not hold 9"):
        Engine(FakeRunner(num_blocks=2, block_tokens=4, max_model_len=9), max_running=1)


def test_a_fresh_seed_is_drawn_where_none_is_given():
    engine = EngineRig().engine
    seeds = {engine.new_sequence("a", [1], greedy()).seed for _ in range(5)}
    assert len(seeds) == 5
    assert engine.new_sequence("a", [1], greedy(seed=7)).seed == 7


def test_the_first_token_comes_with_the_time_in_the_queue_and_what_was_cached():
    clock = Clock()
    rig = EngineRig(max_running=1, clock=clock)
    prompt = [1, 2, 3, 4, 5, 6]
    rig.add("first", prompt, greedy(2))
    rig.add("second", prompt, greedy(2))
    rig.step()
    clock.now_s += 2.5
    outcome = rig.finish()
    assert outcome.starts == {"first": Start(queue_s=0.0, num_cached_tokens=0), "second": Start(queue_s=2.5, num_cached_tokens=4)}


def test_log_probabilities_come_with_the_tokens_that_asked():
    rig = EngineRig()
    rig.add("a", [1, 2], greedy(1, logprobs=2))
    rig.add("b", [1, 2], greedy(1))
    events = {event.sequence_id: event for event in rig.engine.step()}
    [logprob] = events["a"].logprobs
    assert (logprob.token_id, len(logprob.top)) == (events["a"].token_ids[0], 2)
    assert events["b"].logprobs == ()


def test_who_has_waited_too_long_is_never_run():
    clock = Clock()
    rig = EngineRig(max_running=1, clock=clock)
    rig.add("running", [1], greedy(5), max_queue_s=1.0)
    rig.add("hurried", [2], max_queue_s=1.0)
    rig.add("patient", [3], max_queue_s=1000.0)
    rig.step()
    assert rig.engine.next_deadline_s == 101.0
    clock.now_s += 1.0
    outcome = rig.finish()
    assert {name: event.finish_reason for name, event in outcome.last.items()} == {
        "running": "length",
        "hurried": "expired",
        "patient": "length",
    }
    assert "hurried" not in {chunk.sequence_id for plan in rig.runner.plans for chunk in plan.chunks}


def test_equal_prompts_are_read_once():
    rig = EngineRig(max_running=8, prefill_chunk_tokens=100)
    prompt = list(range(20))
    for name in "abcd":
        rig.add(name, prompt, greedy(4))
    outcome = rig.finish()
    assert {tuple(outcome.token_ids[name]) for name in "abcd"} == {tuple(continuation(prompt, 24, frozenset()))}
    assert sum(len(chunk.token_ids) for chunk in rig.runner.plans[0].chunks) == 20
    assert sum(len(chunk.token_ids) for chunk in rig.runner.plans[1].chunks) == 1 + 3 * 4
    assert (rig.engine.stats().queried_tokens, rig.engine.stats().cached_tokens) == (80, 48)


@pytest.mark.parametrize(("prefix_caching", "num_cached"), [(True, 20), (False, 0)])
def test_the_next_turn_of_a_chat_finds_the_last_one_if_prefixes_are_cached(prefix_caching, num_cached):
    rig = EngineRig(prefix_caching=prefix_caching)
    prompt = list(range(14))
    rig.add("first turn", prompt, greedy(8))
    first = rig.finish().token_ids["first turn"]
    rig.add("second turn", [*prompt, *first, 9, 9], greedy(2))
    assert rig.finish().starts["second turn"].num_cached_tokens == num_cached


def test_preempted_sequences_get_what_they_would_have_got():
    rig = EngineRig(FakeRunner(num_blocks=8, block_tokens=4))
    prompts = {name: [ord(name) % 32, 5, 9] for name in "abcd"}
    for name, prompt in prompts.items():
        rig.add(name, prompt, greedy(20))
    outcome = rig.finish()
    assert rig.engine.stats().preemptions > 0
    for name, prompt in prompts.items():
        assert outcome.token_ids[name] == continuation(prompt, 23, frozenset())


def test_statistics_tell_who_uses_what():
    rig = EngineRig(max_running=1)
    rig.add("a", [1, 2, 3, 4, 5])
    rig.add("b", [1])
    rig.step()
    stats = rig.engine.stats()
    assert (stats.running, stats.waiting, stats.blocks_used, stats.blocks_total, stats.steps) == (1, 1, 2, 64, 1)
    rig.finish()
    assert (rig.engine.stats().running, rig.engine.stats().blocks_used) == (0, 0)
