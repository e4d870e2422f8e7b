"""Traces: files are read strictly, and drawn ones have the lengths and the rate that were asked for."""

from __future__ import annotations

import statistics

import pytest

from archiver.errors import UsageError
from archiver.plan.simulation.trace import TraceRequest, read_trace, synthesize
from archiver.plan.workload import Quantiles


def test_a_trace_is_read_in_order_of_arrival(tmp_path):
    file = tmp_path / "trace.jsonl"
    file.write_text(
        '{"arrival_s": 2, "prompt_tokens": 120, "output_tokens": 64, "prefix": "chat", "prefix_tokens": 100}\n'
        "\n"
        '{"arrival_s": 0.5, "prompt_tokens": 7, "output_tokens": 1}\n'
    )
    assert read_trace(file) == (TraceRequest(0.5, 7, 1), TraceRequest(2.0, 120, 64, "chat", 100))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("arrival_s: 1", "Invalid JSON"),
        ('{"arrival_s": 1, "prompt_tokens": 3}', "output_tokens: Field required"),
        ('{"arrival_s": 1, "prompt_tokens": 3, "output_tokens": 2, "user": "me"}', "user: Unexpected"),
        ('{"arrival_s": "1", "prompt_tokens": 3, "output_tokens": 2}', "arrival_s: .*number"),
        ('{"arrival_s": -1, "prompt_tokens": 3, "output_tokens": 2}', "arrival_s: .*greater"),
        ('{"arrival_s": 1, "prompt_tokens": 0, "output_tokens": 2}', "prompt_tokens: .*greater"),
        ('{"arrival_s": 1, "prompt_tokens": 3, "output_tokens": 2.5}', "output_tokens: .*integer"),
        ('{"arrival_s": NaN, "prompt_tokens": 3, "output_tokens": 2}', "arrival_s: .*finite"),
        ('{"arrival_s": 1, "prompt_tokens": 3, "output_tokens": 2, "prefix": "a"}', "go together"),
        ('{"arrival_s": 1, "prompt_tokens": 3, "output_tokens": 2, "prefix_tokens": 2}', "go together"),
        ('{"arrival_s": 1, "prompt_tokens": 3, "output_tokens": 2, "prefix": "a", "prefix_tokens": 4}', "longer than its prompt"),
    ],
)
def test_a_line_that_is_no_request_is_named(tmp_path, line, complaint):
    file = tmp_path / "trace.jsonl"
    file.write_text('{"arrival_s": 0, "prompt_tokens": 3, "output_tokens": 2}\n' + line)
    with pytest.raises(UsageError, match=rf"trace.jsonl:2 is no request \(.*{complaint}"):
        read_trace(file)


def test_a_trace_without_requests_is_refused(tmp_path):
    file = tmp_path / "trace.jsonl"
    file.write_text("\n")
    with pytest.raises(UsageError, match="holds no requests"):
        read_trace(file)
    with pytest.raises(UsageError, match="cannot read the trace .*absent.jsonl: No such file"):
        read_trace(tmp_path / "absent.jsonl")


def test_drawn_lengths_go_through_the_quantiles_at_the_rate():
    drawn = synthesize(4.0, Quantiles(500, 2000), Quantiles(100, 100), 5000, seed=1)
    prompts = sorted(request.prompt_tokens for request in drawn)
    assert statistics.median(prompts) == pytest.approx(500, rel=0.05)
    assert prompts[int(0.95 * len(prompts))] == pytest.approx(2000, rel=0.1)
    assert {request.output_tokens for request in drawn} == {100}
    assert len(drawn) / drawn[-1].arrival_s == pytest.approx(4.0, rel=0.05)
    pauses = [later.arrival_s - earlier.arrival_s for earlier, later in zip(drawn, drawn[1:], strict=False)]
    assert statistics.stdev(pauses) == pytest.approx(statistics.mean(pauses), rel=0.1)  # as those of a Poisson process are


def test_a_seed_draws_the_same_requests_at_every_rate():
    slow, fast, other = (synthesize(rate, Quantiles(50, 90), Quantiles(9, 30), 50, seed) for rate, seed in ((1.0, 0), (8.0, 0), (1.0, 1)))
    assert [request.num_tokens for request in slow] == [request.num_tokens for request in fast]
    assert [request.arrival_s for request in slow] == pytest.approx([8 * request.arrival_s for request in fast])
    assert slow != other
