"""The engine over a fake model: every schedule gives what each sequence would have got alone."""

from collections import defaultdict

import pytest
from engine_fakes import VOCAB_SIZE, FakeRunner, continuation, next_token
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.engine import CRASHED, INVALID_LOGITS, Engine
from handlers.errors import InvalidRequest
from handlers.requests import SamplingParams

EOS = 3
GREEDY = SamplingParams(max_tokens=8, temperature=0.0)


def make_engine(runner: FakeRunner, prefill_chunk_tokens: int = 8) -> Engine:
    return Engine(runner, prefill_chunk_tokens=prefill_chunk_tokens, eos_token_ids=frozenset([EOS]))


def add(engine: Engine, name: str, prompt: list[int], params: SamplingParams = GREEDY) -> None:
    engine.add(engine.new_sequence(name, prompt, params))


class Outcome:
    """Collects events, and notices a second terminal event or tokens after the first."""

    def __init__(self):
        self.token_ids = defaultdict(list)
        self.last = {}

    def take(self, events):
        for event in events:
            assert event.sequence_id not in self.last, "an event after the terminal one"
            self.token_ids[event.sequence_id].extend(event.token_ids)
            if event.finish_reason is not None:
                self.last[event.sequence_id] = event


def finish(engine: Engine, outcome: Outcome, max_steps: int = 2000) -> None:
    for _ in range(max_steps):
        if not engine.has_work:
            return
        outcome.take(engine.step())
        engine.check_integrity()
    raise AssertionError("the engine did not finish")


def step_or_recover(engine: Engine, outcome: Outcome) -> None:
    try:
        outcome.take(engine.step())
    except (RuntimeError, MemoryError):
        outcome.take(engine.recover())
    engine.check_integrity()


PROMPTS = st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1, max_size=20)
ADDS = st.tuples(PROMPTS, st.integers(1, 12), st.booleans(), st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=2))
OPERATIONS = st.lists(st.one_of(ADDS, st.integers(0, 30), st.none()), max_size=40)  # add, cancel the nth, step
FAILURES = st.dictionaries(st.integers(1, 25), st.sampled_from([RuntimeError("boom"), MemoryError()]), max_size=3)


@given(OPERATIONS, st.integers(1, 5), st.integers(1, 9), FAILURES)
def test_any_schedule_equals_the_oracle_and_ends_every_sequence_once(operations, num_slots, prefill_chunk_tokens, failures):
    runner = FakeRunner(num_slots, max_model_len=24, failures=failures)
    engine, outcome, added = make_engine(runner, prefill_chunk_tokens), Outcome(), {}
    for operation in operations:
        if operation is None:
            step_or_recover(engine, outcome)
        elif isinstance(operation, int):
            event = engine.cancel(str(operation))
            assert (event is not None) == (str(operation) in added and str(operation) not in outcome.last)
            outcome.take([event] if event else [])
            engine.check_integrity()
        else:
            prompt, max_tokens, ignore_eos, stop_token_ids = operation
            name = str(len(added))
            params = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=ignore_eos, stop_token_ids=tuple(stop_token_ids))
            added[name] = engine.new_sequence(name, prompt, params)
            engine.add(added[name])
        assert engine.num_running <= num_slots
        assert engine.num_running + engine.num_waiting == len(added) - len(outcome.last)
    while engine.has_work:
        step_or_recover(engine, outcome)

    assert outcome.last.keys() == added.keys()
    for name, sequence in added.items():
        prompt = sequence.token_ids[: sequence.num_prompt_tokens]
        expected = continuation(prompt, sequence.max_len, sequence.end_token_ids)
        event, got = outcome.last[name], outcome.token_ids[name]
        if event.finish_reason in ("cancelled", "error"):
            assert got == expected[: len(got)]
            continue
        assert got == expected
        ended_by_token = expected[-1] in sequence.end_token_ids
        assert (event.finish_reason, event.num_stop_tokens) == (("stop", 1) if ended_by_token else ("length", 0))


def test_every_live_sequence_takes_part_in_every_step_once_it_is_read():
    runner = FakeRunner(num_slots=2)
    engine = make_engine(runner, prefill_chunk_tokens=4)
    add(engine, "running", [1, 2])
    assert len(engine.step()) == 1
    add(engine, "long", list(range(10, 30)))
    for _ in range(4):
        assert [event.sequence_id for event in engine.step()] == ["running"]


def test_the_stop_token_is_reported_and_counted_but_no_text():
    prompt = [5, 6]
    stop = next_token(prompt)
    engine, outcome = make_engine(FakeRunner()), Outcome()
    add(engine, "a", prompt, SamplingParams(max_tokens=8, temperature=0.0, stop_token_ids=(stop,)))
    finish(engine, outcome)
    assert outcome.token_ids["a"] == [stop]
    assert (outcome.last["a"].finish_reason, outcome.last["a"].num_stop_tokens) == ("stop", 1)


def test_the_window_ends_a_sequence_before_max_tokens():
    engine, outcome = make_engine(FakeRunner(max_model_len=10)), Outcome()
    add(engine, "a", [1] * 7, SamplingParams(max_tokens=100, temperature=0.0, ignore_eos=True))
    finish(engine, outcome)
    assert len(outcome.token_ids["a"]) == 3
    assert outcome.last["a"].finish_reason == "length"


@pytest.mark.parametrize(
    ("prompt", "params", "message"),
    [
        ([], GREEDY, "empty"),
        ([1] * 64, GREEDY, "64 tokens"),
        ([1, VOCAB_SIZE], GREEDY, "0..31"),
        ([-1], GREEDY, "0..31"),
        ([1], SamplingParams(max_tokens=0), "max_tokens"),
    ],
)
def test_what_can_never_run_is_refused(prompt, params, message):
    engine = make_engine(FakeRunner(max_model_len=64))
    with pytest.raises(InvalidRequest, match=message):
        add(engine, "a", prompt, params)
    assert not engine.has_work


def test_max_tokens_must_have_been_decided():
    with pytest.raises(ValueError, match="max_tokens"):
        add(make_engine(FakeRunner()), "a", [1], SamplingParams())


def test_a_fresh_seed_is_drawn_where_none_is_given():
    engine = make_engine(FakeRunner())
    seeds = {engine.new_sequence("a", [1], GREEDY).seed for _ in range(5)}
    assert len(seeds) == 5
    assert engine.new_sequence("a", [1], SamplingParams(max_tokens=1, seed=7)).seed == 7


def test_a_sequence_with_invalid_logits_ends_alone():
    engine, outcome = make_engine(FakeRunner(poison=30)), Outcome()
    add(engine, "good", [1, 2], SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True))
    add(engine, "bad", [30])
    finish(engine, outcome)
    assert (outcome.last["bad"].finish_reason, outcome.last["bad"].error) == ("error", INVALID_LOGITS)
    assert outcome.last["good"].finish_reason == "length"
    assert outcome.token_ids["good"] == continuation([1, 2], 6, frozenset())


@pytest.mark.parametrize("failure", [RuntimeError("CUDA error: device-side assert"), MemoryError()])
def test_after_a_crash_running_sequences_fail_and_waiting_ones_run(failure):
    engine, outcome = make_engine(FakeRunner(num_slots=1, failures={2: failure})), Outcome()
    add(engine, "running", [1, 2])
    add(engine, "waiting", [3, 4], SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True))
    outcome.take(engine.step())
    with pytest.raises(type(failure)):
        engine.step()
    outcome.take(engine.recover())
    assert outcome.last["running"].error == CRASHED
    finish(engine, outcome)
    assert outcome.token_ids["waiting"] == continuation([3, 4], 5, frozenset())


def test_a_runner_that_cannot_be_reset_does_not_stop_recovery(caplog):
    runner = FakeRunner(failures={1: RuntimeError("boom")})
    runner.reset = lambda: (_ for _ in ()).throw(RuntimeError("device lost"))
    engine = make_engine(runner)
    add(engine, "a", [1])
    with pytest.raises(RuntimeError, match="boom"):
        engine.step()
    assert [event.finish_reason for event in engine.recover()] == ["error"]
    assert "device lost" in caplog.text
