"""Traces and timings of small numbers, for hypothesis."""

from __future__ import annotations

from hypothesis import strategies as st

from archiver.plan.simulation.continuous import ContinuousSettings
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.simulation.trace import TraceRequest

MAX_MODEL_LEN = 24
# Binary fractions: sums of them are exact.
TIMING = TimingModel(1 / 64, per_decode_s=1 / 512, per_prompt_token_s=1 / 1024, per_context_token_s=1 / 65536, request_overhead_s=1 / 128)


def trace(*lengths: tuple[int, int], every_s: float = 0.0) -> list[TraceRequest]:
    """Return requests of (prompt, output) tokens at equal distances."""
    return [TraceRequest(number * every_s, prompt, output) for number, (prompt, output) in enumerate(lengths)]


@st.composite
def traces(draw: st.DrawFn, max_size: int = 20) -> list[TraceRequest]:
    """Bursts and pauses; beginnings in common; now and then a request that never fits."""
    arrival_s, requests = 0.0, []
    for _ in range(draw(st.integers(1, max_size))):
        arrival_s += draw(st.sampled_from([0.0, 0.0, 1 / 128, 1 / 16, 2.0]))
        prefix, prefix_tokens = draw(st.sampled_from([(None, 0), (None, 0), ("a", 4), ("a", 9), ("b", 8)]))
        prompt_tokens = prefix_tokens + draw(st.integers(1, 12))
        requests.append(TraceRequest(arrival_s, prompt_tokens, draw(st.integers(1, 10)), prefix, prefix_tokens))
    return requests


settings = st.builds(
    ContinuousSettings,
    num_blocks=st.integers(6, 30),
    max_model_len=st.just(MAX_MODEL_LEN),
    max_running=st.integers(1, 6),
    max_waiting=st.integers(0, 10),
    block_tokens=st.just(4),
    prefill_chunk_tokens=st.integers(1, 20),
    prefix_caching=st.booleans(),
)
