"""What a plan predicts beside what is: memory as a real server's worker measures it, and steps of the engine, on this machine's CPU.

    python -m tests.bench.plan_bench --models tinychat,m15,m135

Memory is read from TorchServe's metrics. Steps are those of the engine in process; the plan's bounds are of the CPU as it was measured just
before. A figure in its interval is marked "yes".
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import httpx
import typer
from rich.console import Console
from rich.table import Table

from archiver.deploy.launch import TorchServe
from archiver.deploy.prepare import prepare_model
from archiver.plan.command import PlanOptions, plan_for
from archiver.plan.hardware.measurement import measure_cpu
from archiver.plan.hardware.profile import Hardware
from archiver.plan.option import evaluate
from archiver.plan.plan import Plan
from archiver.plan.target import TargetOptions
from handlers.memory_ledger import Interval, Part
from tests.bench.checkpoint import PlainTokenizer, find_checkpoint
from tests.bench.in_process import InProcessEngine
from tests.bench.models import CACHE
from tests.bench.step_times import StepTimer

_SETTLE_S = 2.5  # metrics are reported once a second
_METRICS: dict[str, tuple[Part, ...]] = {
    "marquee_weight_bytes": ("weights",),
    "marquee_kv_cache_bytes": ("kv_cache",),
    "marquee_activation_bytes": ("activations", "logits"),
    "marquee_context_bytes": ("context",),
}
_STREAMS = (1, 8, 32)


@dataclass(frozen=True)
class Comparison:
    """One figure: what was predicted, and what was measured (the median, and the extremes)."""

    model: str
    what: str
    unit: str
    predicted: Interval
    measured: tuple[float, ...]

    @property
    def median(self) -> float:
        """Return the middle of what was measured."""
        return statistics.median(self.measured)


def main(
    models: Annotated[str, typer.Option(help="Which, separated by commas.")] = "tinychat",
    repeats: Annotated[int, typer.Option(help="Starts of the server, and timings.")] = 3,
    cache: Annotated[Path, typer.Option(help="Where models are kept.")] = CACHE,
) -> None:
    """Print a table a model."""
    console = Console()
    for model in models.split(","):
        checkpoint = find_checkpoint(model, cache)
        comparisons = [*compare_memory(model, checkpoint, repeats), *compare_speed(model, checkpoint, repeats)]
        console.print(_table(comparisons))


def compare_memory(model: str, checkpoint: Path, repeats: int) -> Iterator[Comparison]:
    """Serve the model with its plan, as a user would, and read what its worker measured."""
    plan, _ = plan_for(PlanOptions(str(checkpoint)))
    runs = [_served_metrics(checkpoint) for _ in range(repeats)]
    for metric, parts in _METRICS.items():
        measured = tuple(run[metric] / 2**20 for run in runs)
        yield Comparison(model, metric.removeprefix("marquee_").removesuffix("_bytes"), "MiB", _mib(plan, *parts), measured)


def compare_speed(model: str, checkpoint: Path, repeats: int) -> Iterator[Comparison]:
    """Time the engine's decode steps and a prompt, and work out the same by the CPU's measured bandwidth and arithmetic."""
    hardware = measure_cpu()
    plan, _ = plan_for(PlanOptions(str(checkpoint), target=TargetOptions(cpu=True)))
    speed = _measured_option(plan, hardware).speed
    engine = InProcessEngine.of_checkpoint(checkpoint, PlainTokenizer(checkpoint))
    try:
        timer = StepTimer(engine.run, PlainTokenizer(checkpoint))
        runs = [timer.measure(_STREAMS[1:], f"{model}/{repeat}").steps for repeat in range(repeats)]
        for index, step in enumerate(runs[0]):
            measured = tuple(1000 * run[index].seconds for run in runs)
            if step.num_decodes:
                predicted = speed.decode_step(step.num_decodes, step.num_context_tokens // step.num_decodes)
                yield Comparison(model, f"step of {step.num_decodes}", "ms", predicted * 1000, measured)
            else:
                predicted = speed.prefill(step.num_prompt_tokens)
                yield Comparison(model, f"prompt of {step.num_prompt_tokens}", "ms", predicted * 1000, measured)
    finally:
        engine.close()


def _measured_option(plan: Plan, hardware: Hardware):  # type: ignore[no-untyped-def]
    return evaluate(replace(plan.request, hardware=hardware), plan.option.replica.engine, plan.option.layout)


def _served_metrics(checkpoint: Path) -> dict[str, float]:
    with TorchServe.start([prepare_model(checkpoint, name="planned")], port=0) as server:
        httpx.post(server.prediction_url(), content=b"warm", timeout=60).raise_for_status()
        time.sleep(_SETTLE_S)
        text = httpx.get(server.metrics_url).text
    return {name: float(value) for name, value in re.findall(r"^(marquee_\w+)\{ModelName=\"planned\",[^}]*\} (\S+)$", text, re.M)}


def _mib(plan: Plan, *parts: Part) -> Interval:
    return plan.option.ledger.total(*parts) * (1 / 2**20)


def _table(comparisons: list[Comparison]) -> Table:
    table = Table(title=comparisons[0].model, title_justify="left", box=None)
    for column in ("", "expected", "between", "measured", "spread", "within", "measured / expected"):
        table.add_column(column, justify="left" if not column else "right")
    for each in comparisons:
        table.add_row(
            f"{each.what}, {each.unit}",
            f"{each.predicted.expected:,.4g}",
            f"{each.predicted.low:,.4g} and {each.predicted.high:,.4g}",
            f"{each.median:,.4g}",
            f"{min(each.measured):,.4g}–{max(each.measured):,.4g}",
            "yes" if each.median in each.predicted else "no",
            f"{each.median / each.predicted.expected:.2f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
