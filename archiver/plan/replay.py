"""Replay a trace against a plan: continuous batching as planned, and static batching beside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from archiver.errors import UsageError
from archiver.plan.configuration import engine_settings
from archiver.plan.option import Option
from archiver.plan.plan import Plan
from archiver.plan.simulation.continuous import ContinuousSettings
from archiver.plan.simulation.measurements import Measurements
from archiver.plan.simulation.outcome import Outcome, Percentiles
from archiver.plan.simulation.simulate import simulate
from archiver.plan.simulation.static_batching import StaticSettings
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.simulation.trace import TraceRequest
from archiver.plan.static_batching import tune
from handlers.config import EngineConfig

_BATCH_SIZE, _DELAY_S = 8, 0.1  # what the guide's example has, where no rate can be kept up with

_UNLIMITED_BLOCKS = 1 << 20  # of a model that keeps no tokens


def replay(plan: Plan, trace: Iterable[TraceRequest], points: Path | None = None) -> Mapping[str, Outcome]:
    """Return what one replica would make of ``trace``, by the kind of batching.

    ``points``: a file of measured steps; without it steps take what the hardware's profile expects. Raises UsageError for a model that does
    not fit, and for a trace or points that cannot be read.
    """
    option, requests = plan.option, tuple(trace)
    timing = _timing(option, points)
    return {
        "continuous batching": simulate(requests, timing, continuous_settings(option)),
        "static batching": simulate(requests, timing, static_settings(plan, requests, timing)),
    }


def continuous_settings(option: Option) -> ContinuousSettings:
    """Return the engine's sizes as the plan has them."""
    sizes, engine = option.replica.sizes, {name: value for name, value in engine_settings(option).items() if name == "max_waiting"}
    block_bytes = option.replica.token_bytes * sizes.block_tokens
    num_blocks = int(option.ledger.total("kv_cache").expected // block_bytes) if block_bytes else _UNLIMITED_BLOCKS
    if not num_blocks:
        raise UsageError(f"there is nothing to simulate: {plan_problem(option)}")
    return ContinuousSettings(
        num_blocks=num_blocks,
        max_model_len=min(sizes.max_model_len, num_blocks * sizes.block_tokens),
        max_running=sizes.max_running,
        max_waiting=engine.get("max_waiting", EngineConfig().max_waiting),
        block_tokens=sizes.block_tokens,
        prefill_chunk_tokens=sizes.prefill_chunk_tokens,
    )


def plan_problem(option: Option) -> str:
    """Say why an option serves nothing."""
    return f"{option.request.model.name} leaves no memory for a KV cache on {option.request.hardware.name}"


def static_settings(plan: Plan, trace: Iterable[TraceRequest], timing: TimingModel) -> StaticSettings:
    """Return TorchServe's batching tuned to the trace's own rate and lengths; the guide's example where it cannot keep up."""
    requests = list(trace)
    arrivals = [request.arrival_s for request in requests]
    duration = max(arrivals) - min(arrivals) if arrivals else 0
    longest = plan.option.replica.sizes.max_model_len
    if not duration:
        return StaticSettings(_BATCH_SIZE, _DELAY_S, max_model_len=longest)
    prompts, outputs = sorted(each.prompt_tokens for each in requests), sorted(each.output_tokens for each in requests)
    prompt, output = prompts[len(prompts) // 2], outputs[len(outputs) * 9 // 10]
    context = prompt + output // 2

    def service_s(batch: int) -> float:
        return timing.step_s(0, batch * prompt, 0) + output * timing.step_s(batch, 0, batch * context)

    tuned = tune(len(requests) / duration, service_s)
    return StaticSettings(
        tuned.batch_size if tuned else _BATCH_SIZE,
        tuned.max_batch_delay_ms / 1000 if tuned else _DELAY_S,
        max_model_len=longest,
    )


def show_outcomes(outcomes: Mapping[str, Outcome], console: Console) -> None:
    """Print the figures side by side."""
    table = Table(title="The trace, simulated", title_justify="left", box=None, pad_edge=False)
    table.add_column("")
    for name in outcomes:
        table.add_column(name, justify="right")
    figures: list[tuple[str, list[str]]] = [
        ("requests", [f"{outcome.num_requests:,}" for outcome in outcomes.values()]),
        ("refused", [f"{outcome.num_refused:,}" for outcome in outcomes.values()]),
        ("too long", [f"{outcome.num_too_long:,}" for outcome in outcomes.values()]),
        ("output tokens/s", [f"{outcome.output_tokens_per_s:,.0f}" for outcome in outcomes.values()]),
        ("latency p50, p99", [_quantiles(outcome.latency) for outcome in outcomes.values()]),
        ("first token p50, p99", [_quantiles(outcome.first_token) for outcome in outcomes.values()]),
        ("between tokens p50, p99", [_quantiles(outcome.inter_token) for outcome in outcomes.values()]),
        ("sequences a step", [f"{outcome.mean_batch:.1f}" for outcome in outcomes.values()]),
        ("preemptions", [f"{outcome.num_preemptions:,}" for outcome in outcomes.values()]),
    ]
    for name, row in figures:
        table.add_row(name, *row)
    console.print(table, highlight=False)


def _timing(option: Option, points: Path | None) -> TimingModel:
    if points is None:
        return option.speed.timing()
    measurements = Measurements.read(points)
    return TimingModel.fit(measurements.steps, measurements.request_overhead_s)


def _quantiles(seconds: Percentiles) -> str:
    return " ".join(f"{1000 * value:,.0f} ms" if value < 10 else f"{value:,.1f} s" for value in (seconds.p50_s, seconds.p99_s))
