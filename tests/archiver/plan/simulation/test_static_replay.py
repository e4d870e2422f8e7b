"""Static batching replayed: against queueing arithmetic, and batch by batch by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traces import TIMING, trace, traces

from archiver.errors import UsageError
from archiver.plan.simulation.outcome import Outcome
from archiver.plan.simulation.static_batching import StaticReplay, StaticSettings
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.simulation.trace import TraceRequest, synthesize
from archiver.plan.workload import Quantiles

# A step takes a second, whatever is in it, so that a batch takes as many seconds as its longest answer has tokens.
SECOND = TimingModel(1.0)


def replay(requests, options, timing=SECOND):
    return StaticReplay(requests, timing, options).run()


def ends(requests, options, timing=SECOND):
    return [answer.end_s for answer in replay(requests, options, timing).answers]


@given(traces())
def test_batches_of_one_are_a_queue(requests):
    """Lindley's recursion: who comes starts when the one before has ended, or at once."""
    free_s, expected = 0.0, []
    for request in requests:
        steps_s = [TIMING.step_s(0, request.prompt_tokens, request.prompt_tokens)]
        steps_s += [TIMING.step_s(1, 0, request.prompt_tokens + number) for number in range(1, request.output_tokens)]
        free_s = max(free_s, request.arrival_s + TIMING.request_overhead_s) + sum(steps_s)
        expected.append(free_s)
    assert ends(requests, StaticSettings(1, 0.0), TIMING) == pytest.approx(expected, rel=1e-12)


def test_the_mean_wait_is_that_of_an_m_d_1_queue():
    """Pollaczek and Khinchine: ρ / 2(1 - ρ) service times."""
    busy = 0.6
    requests = synthesize(busy, Quantiles(1, 1), Quantiles(1, 1), 40_000)
    answers = replay(requests, StaticSettings(1, 0.0, job_queue_size=1000)).answers
    mean_wait_s = math.fsum(answer.end_s - answer.arrival_s - 1.0 for answer in answers) / len(answers)
    assert mean_wait_s == pytest.approx(busy / (2 * (1 - busy)), rel=0.05)


def test_a_full_batch_goes_at_once_and_lasts_as_long_as_its_longest_answer():
    journal = replay(trace((5, 2), (9, 7), (5, 1), every_s=0.25), StaticSettings(3, 10.0))
    assert [answer.end_s for answer in journal.answers] == [0.5 + 7] * 3
    assert (journal.num_steps, journal.num_step_sequences) == (7, 2 + 7 + 1)
    assert journal.peak_kv_tokens == 3 * (9 + 7)


def test_a_batch_that_does_not_fill_waits_for_the_delay():
    assert ends(trace((5, 2), (5, 2), (5, 2), every_s=0.25), StaticSettings(8, 0.3)) == [0.3 + 2, 0.3 + 2, 2.3 + 0.3 + 2]


def test_the_delay_begins_when_the_worker_takes_the_first():
    """Not when that came: it has waited for the worker for longer than the delay, and another that comes now still joins it."""
    requests = [TraceRequest(0.0, 5, 8), TraceRequest(1.0, 5, 1), TraceRequest(8.9, 5, 1)]
    assert ends(requests, StaticSettings(2, 0.5)) == [8.5, 9.9, 9.9]


def test_without_a_delay_no_batch_has_more_than_two():
    assert ends([TraceRequest(0.0, 5, 1)] * 5, StaticSettings(8, 0.0)) == [1.0, 1.0, 2.0, 2.0, 3.0]


def test_prompts_are_padded_to_the_longest():
    timing = TimingModel(1.0, per_prompt_token_s=0.01)
    assert ends([TraceRequest(0.0, 10, 1), TraceRequest(0.0, 90, 1)], StaticSettings(2, 1.0), timing) == [pytest.approx(1.0 + 1.8)] * 2


def test_only_a_batch_of_one_is_streamed():
    alone = replay([TraceRequest(0.0, 5, 4)], StaticSettings(4, 0.5))
    assert (alone.answers[0].first_token_s, list(alone.gaps_s)) == (1.5, [1.0] * 3)
    together = replay([TraceRequest(0.0, 5, 4)] * 2, StaticSettings(2, 0.5))
    assert [answer.first_token_s for answer in together.answers] == [4.0, 4.0]
    assert not together.gaps_s


def test_workers_take_turns_at_waiting():
    """The second one waits for its batch only when the first has its own."""
    requests = [TraceRequest(arrival_s, 5, 3) for arrival_s in (0.0, 0.4, 0.6, 0.9)]
    assert ends(requests, StaticSettings(8, 0.5, num_workers=2)) == [3.5, 3.5, 4.1, 4.1]


def test_a_worker_that_is_still_busy_takes_nothing():
    requests = [TraceRequest(0.0, 5, 9), *trace((5, 1), (5, 1), (5, 1))]
    assert sorted(ends(requests, StaticSettings(1, 0.0, num_workers=2))) == [1.0, 2.0, 3.0, 9.0]


def test_those_who_find_the_queue_full_are_refused():
    requests = [TraceRequest(0.0, 5, 4), *[TraceRequest(1.0, 5, 1)] * 3, TraceRequest(4.5, 5, 1)]
    journal = replay(requests, StaticSettings(1, 0.0, job_queue_size=2))
    assert journal.num_refused == 1
    assert [answer.end_s for answer in journal.answers] == [4.0, 5.0, 6.0, 7.0]


@given(
    traces(),
    st.builds(
        StaticSettings,
        batch_size=st.integers(1, 6),
        max_batch_delay_s=st.sampled_from([0.0, 1 / 64, 1.0]),
        num_workers=st.integers(1, 3),
        job_queue_size=st.integers(1, 20),
        max_model_len=st.sampled_from([None, 24]),
    ),
)
def test_every_request_is_answered_once_or_turned_away(requests, options):
    journal = replay(requests, options, TIMING)
    outcome = Outcome.of(journal)
    assert outcome.num_requests == len(requests)
    assert journal.num_too_long == sum(request.num_tokens > (options.max_model_len or 1000) for request in requests)
    assert all(answer.arrival_s + TIMING.request_overhead_s < answer.first_token_s <= answer.end_s for answer in journal.answers)
    assert outcome.mean_batch <= options.batch_size
    if options.job_queue_size >= len(requests):
        assert journal.num_refused == 0


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"max_batch_delay_s": -1}, {"num_workers": 0}, {"job_queue_size": 0}])
def test_settings_that_make_no_sense_are_named(options):
    with pytest.raises(UsageError, match=f"{next(iter(options))} must be"):
        StaticSettings(**{"batch_size": 1, "max_batch_delay_s": 0.0, **options})
