"""Continuous batching replayed: by hand for one and two requests, by its laws for any trace."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from traces import MAX_MODEL_LEN, TIMING, settings, trace, traces

from archiver.errors import UsageError
from archiver.plan.simulation.continuous import ContinuousReplay, ContinuousSettings
from archiver.plan.simulation.outcome import Answer
from archiver.plan.simulation.trace import TraceRequest

ROOMY = ContinuousSettings(num_blocks=400, max_model_len=200, block_tokens=4, prefill_chunk_tokens=8, max_running=8, max_waiting=0)


def replay(requests, options=ROOMY, timing=TIMING):
    return ContinuousReplay(requests, timing, options).run()


def test_a_request_alone_takes_its_chunks_and_its_tokens():
    journal = replay([TraceRequest(3.0, 19, 4)])
    chunks_s = TIMING.step_s(0, 8, 8) + TIMING.step_s(0, 8, 16) + TIMING.step_s(0, 3, 19)
    decodes_s = [TIMING.step_s(1, 0, context) for context in (20, 21, 22)]
    first_s = 3.0 + TIMING.request_overhead_s + chunks_s
    assert journal.answers == [Answer(3.0, first_s, first_s + sum(decodes_s), 4)]
    assert list(journal.gaps_s) == decodes_s
    assert (journal.num_steps, journal.num_step_sequences, journal.peak_kv_tokens) == (6, 6, 24)


def test_a_prompt_shares_the_step_of_a_stream():
    first, second = replay(trace((8, 9), (8, 1), every_s=1 / 64)).answers[::-1]
    alone_s = replay(trace((8, 9))).answers[0].end_s
    assert first.end_s - alone_s == TIMING.step_s(1, 8, 9 + 8) - TIMING.step_s(1, 0, 9)
    assert second.end_s < first.end_s


@given(traces(), settings)
def test_every_request_is_answered_once_or_turned_away(requests, options):
    journal = replay(requests, options)
    assert len(journal.answers) + journal.num_refused + journal.num_too_long == len(requests)
    assert journal.num_too_long == sum(request.num_tokens > MAX_MODEL_LEN for request in requests)
    if options.max_running + options.max_waiting >= len(requests):
        fitting = [request for request in requests if request.num_tokens <= MAX_MODEL_LEN]
        expected = sorted((request.arrival_s, request.output_tokens) for request in fitting)
        assert sorted((answer.arrival_s, answer.num_output_tokens) for answer in journal.answers) == expected
    assert len(journal.gaps_s) == sum(answer.num_output_tokens - 1 for answer in journal.answers)


@given(traces(), settings)
def test_time_never_runs_backwards(requests, options):
    journal = replay(requests, options)
    assert all(earlier.end_s <= later.end_s for earlier, later in pairwise(journal.answers))
    shortest_s = TIMING.request_overhead_s + TIMING.base_s
    assert all(answer.arrival_s + shortest_s < answer.first_token_s <= answer.end_s for answer in journal.answers)
    assert all(gap_s >= TIMING.base_s for gap_s in journal.gaps_s)


@given(traces(), settings)
def test_nothing_is_faster_than_the_timing_model_allows(requests, options):
    """A step gives at most a token to each running sequence."""
    answers = replay(requests, options).answers
    num_tokens = sum(answer.num_output_tokens for answer in answers)
    cheapest_s = min(TIMING.per_decode_s, TIMING.per_prompt_token_s)
    fastest = options.max_running / (TIMING.base_s + options.max_running * cheapest_s)
    busy_s = max((answer.end_s for answer in answers), default=0.0) - min((answer.arrival_s for answer in answers), default=0.0)
    assert num_tokens <= fastest * busy_s + 1e-9


@given(traces(), settings)
def test_the_cache_holds_what_is_said_and_no_more(requests, options):
    journal = replay(requests, options)
    assert journal.peak_kv_tokens <= options.num_blocks * options.block_tokens
    # With a prompt of one token as much as comes out: the last token's keys and values are never needed.
    assert journal.peak_kv_tokens >= max((answer.num_output_tokens for answer in journal.answers), default=0)
    if options.num_blocks >= options.max_running * MAX_MODEL_LEN / options.block_tokens:
        assert journal.num_preemptions == 0


def test_a_preempted_request_is_computed_again():
    tight = ContinuousSettings(num_blocks=6, max_model_len=24, block_tokens=4, prefill_chunk_tokens=8, max_running=2)
    journal = replay(trace((4, 16), (4, 16)), tight)
    assert journal.num_preemptions == 1
    assert [answer.num_output_tokens for answer in journal.answers] == [16, 16]


def test_those_beyond_the_places_are_refused_while_these_are_taken():
    one_place = ContinuousSettings(num_blocks=40, max_model_len=100, max_running=1, max_waiting=1)
    journal = replay(trace((8, 4), (8, 4), (8, 4)), one_place)
    assert (len(journal.answers), journal.num_refused) == (2, 1)
    assert replay(trace((8, 4), (8, 4), (8, 4), every_s=1.0), one_place).num_refused == 0


def test_a_shared_beginning_is_read_once():
    requests = [TraceRequest(arrival_s, 24, 1, "system", 16) for arrival_s in (0.0, 10.0)]
    cold, warm = replay(requests).answers
    assert cold.end_s - cold.arrival_s == TIMING.request_overhead_s + sum(TIMING.step_s(0, 8, context) for context in (8, 16, 24))
    assert warm.end_s - warm.arrival_s == TIMING.request_overhead_s + TIMING.step_s(0, 8, 24)
    without = ContinuousSettings(num_blocks=400, max_model_len=200, block_tokens=4, prefill_chunk_tokens=8, prefix_caching=False)
    again = replay(requests, without).answers[1]
    assert again.end_s - again.arrival_s == cold.end_s - cold.arrival_s


def test_beginnings_of_other_names_are_not_shared():
    cold, other = replay([TraceRequest(0.0, 24, 1, "system", 16), TraceRequest(10.0, 24, 1, "another", 16)]).answers
    assert other.end_s - other.arrival_s == cold.end_s - cold.arrival_s


def test_blocks_that_do_not_hold_one_sequence_are_refused():
    with pytest.raises(UsageError, match="9 KV blocks of 16 tokens do not hold one sequence of 145"):
        ContinuousSettings(num_blocks=9, max_model_len=145)
