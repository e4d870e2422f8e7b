"""The figures: continuous beside static batching, percentiles, JSON; and that all of it goes without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from archiver.errors import UsageError
from archiver.plan.simulation.continuous import ContinuousSettings
from archiver.plan.simulation.outcome import Answer, Journal, Outcome, Percentiles
from archiver.plan.simulation.simulate import simulate
from archiver.plan.simulation.static_batching import StaticSettings
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.simulation.trace import TraceRequest, synthesize
from archiver.plan.workload import Quantiles

ROOT = Path(__file__).parents[4]
TIMING = TimingModel(0.012, per_decode_s=0.0005, per_prompt_token_s=0.0001, request_overhead_s=0.003)
CONTINUOUS = ContinuousSettings(num_blocks=1024, max_model_len=4096, max_running=8, max_waiting=1000)
STATIC = StaticSettings(8, 0.05)


@examples(max_examples=15)
@given(st.integers(0, 1000), st.floats(2.0, 12.0))
def test_mixed_lengths_are_served_sooner_in_continuous_batches(seed, rate):
    trace = synthesize(rate, Quantiles(100, 400), Quantiles(30, 300), 100, seed)
    continuous, static = (simulate(trace, TIMING, settings) for settings in (CONTINUOUS, STATIC))
    assert continuous.output_tokens_per_s > static.output_tokens_per_s
    assert continuous.latency.p50_s < static.latency.p50_s
    assert continuous.first_token.p99_s < static.first_token.p99_s


def test_the_order_of_a_trace_does_not_matter():
    trace = synthesize(5.0, Quantiles(100, 400), Quantiles(30, 300), 50)
    for settings in (CONTINUOUS, STATIC):
        assert simulate(trace[::-1], TIMING, settings) == simulate(trace, TIMING, settings)


def test_a_trace_without_requests_is_refused():
    with pytest.raises(UsageError, match="holds no requests"):
        simulate([], TIMING, STATIC)


def test_percentiles_are_of_the_nearest_rank():
    assert Percentiles.of(range(200, 0, -1)) == Percentiles(101, 199)
    assert Percentiles.of([7.0]) == Percentiles(7.0, 7.0)


def test_figures_are_sums_over_the_answers():
    journal = Journal([Answer(1.0, 2.0, 4.0, 30), Answer(2.0, 5.0, 6.0, 20)], num_refused=3, num_too_long=2)
    journal.note_steps(1, 4, num_kv_tokens=64)
    journal.note_steps(3, 6, num_kv_tokens=32)
    outcome = Outcome.of(journal)
    assert (outcome.num_requests, outcome.num_refused, outcome.num_too_long) == (7, 3, 2)
    assert (outcome.duration_s, outcome.requests_per_s, outcome.output_tokens_per_s) == (5.0, 0.4, 10.0)
    assert (outcome.latency, outcome.first_token) == (Percentiles(4.0, 4.0), Percentiles(3.0, 3.0))
    assert (outcome.mean_batch, outcome.peak_kv_tokens) == (2.5, 64)


def test_figures_are_json_even_where_there_are_none():
    nobody = simulate([TraceRequest(0.0, 5000, 1)], TIMING, CONTINUOUS)
    figures = json.loads(json.dumps(nobody.to_dict(), allow_nan=False))
    assert figures["num_too_long"] == 1
    assert figures["output_tokens_per_s"] == 0
    assert figures["latency"] == {"p50_s": None, "p99_s": None}


def test_nothing_heavy_is_imported():
    code = "import sys, archiver.plan.simulation.simulate; sys.exit(bool({'torch', 'numpy', 'transformers'} & sys.modules.keys()))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
