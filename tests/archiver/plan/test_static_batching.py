"""TorchServe's dynamic batching, tuned: against arithmetic by hand, and against the simulator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.plan.simulation.simulate import simulate
from archiver.plan.simulation.static_batching import StaticSettings
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.simulation.trace import synthesize
from archiver.plan.static_batching import mean_batch, tune
from archiver.plan.workload import Quantiles


def test_the_mean_batch_is_the_first_request_and_those_of_the_delay():
    assert mean_batch(8, rate=20, delay_s=0.1) == 3
    assert mean_batch(8, rate=200, delay_s=0.1) == 8


def test_one_request_at_a_time_is_enough_for_few():
    found = tune(rate=1, service_s=lambda batch: 0.5)
    assert found is not None
    assert (found.batch_size, found.max_batch_delay_ms, found.utilization) == (1, 0, 0.5)
    assert found.latency_s == pytest.approx(0.5 + 0.5 * 0.5 / (2 * 0.5))  # M/D/1


def test_batches_grow_until_the_worker_keeps_up():
    found = tune(rate=10, service_s=lambda batch: 0.4 + 0.02 * batch)
    assert found is not None
    assert found.utilization == pytest.approx(10 * (0.4 + 0.02 * found.batch_size) / found.batch_size)
    smaller = found.batch_size - 1
    assert 10 * (0.4 + 0.02 * smaller) / smaller > 0.85  # one fewer would not do
    assert found.max_batch_delay_ms == 100 * (found.batch_size - 1)


def test_what_cannot_be_kept_up_with_has_no_answer():
    assert tune(rate=100, service_s=lambda batch: 0.1 * batch) is None
    assert tune(rate=1, service_s=lambda batch: 0.5, latency_s=0.4) is None


@given(st.floats(0.1, 50), st.floats(0.01, 2), st.floats(0, 0.05))
def test_what_is_found_keeps_to_its_limits(rate, base_s, each_s):
    found = tune(rate, lambda batch: base_s + each_s * batch)
    assert found is None or (found.utilization <= 0.85 and 1 <= found.mean_batch <= found.batch_size)


def test_the_simulated_server_keeps_up_where_the_tuned_batch_says_so():
    """Requests all alike, so that a batch takes what was said; the queue must not grow over a thousand of them."""
    timing, lengths = TimingModel(base_s=0.02, per_decode_s=0.001, per_prompt_token_s=0.0001), Quantiles(100, 100)
    found = tune(rate=6, service_s=lambda batch: timing.step_s(0, 100 * batch, 0) + 20 * timing.step_s(batch, 0, 0))
    assert found is not None
    trace = synthesize(6, lengths, Quantiles(20, 20), 1000, seed=1)
    outcome = simulate(trace, timing, StaticSettings(found.batch_size, found.max_batch_delay_ms / 1000))
    assert outcome.num_refused == 0
    assert outcome.latency.p50_s < 3 * found.latency_s
    one_by_one = simulate(trace, timing, StaticSettings(1, 0.0))
    assert one_by_one.latency.p99_s > 10 * outcome.latency.p99_s
