"""Compare what the simulator predicts with what a server does: the same trace, replayed by clients who come at its times.

    python -m tests.bench.simulate_bench --models tinychat,m135 --repeats 3 --out /tmp/simulate

Before and after each replay a few steps are timed at the server itself, while it does nothing else, because a shared machine's speed drifts
within a minute; the prediction knows nothing more. Another one knows the steps of the engine alone, without server and clients: what they
differ by is what these take of the machine. Turns in which other processes were busy are taken again.
"""

from __future__ import annotations

import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, TypeVar

import typer
import yaml
from rich.console import Console
from rich.table import Table

from archiver.deploy.launch import TorchServe
from archiver.deploy.prepare import PackagingOptions, prepare_model
from archiver.plan.simulation.continuous import ContinuousSettings
from archiver.plan.simulation.measurements import Measurements
from archiver.plan.simulation.outcome import Answer, Journal, Outcome
from archiver.plan.simulation.simulate import Settings, simulate
from archiver.plan.simulation.static_batching import StaticSettings
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.simulation.trace import TraceRequest, synthesize
from archiver.plan.workload import Quantiles
from tests.bench.checkpoint import PlainTokenizer, find_checkpoint
from tests.bench.figures import Spread
from tests.bench.in_process import InProcessEngine
from tests.bench.load import Completions, run_load
from tests.bench.models import CACHE, Shape
from tests.bench.open_loop import run_open_loop
from tests.bench.others import Moment
from tests.bench.report import Machine, write_json
from tests.bench.step_times import StepTimer
from tests.bench.workload import Job, Lengths, Tokenizer, Workload

_STATIC_HANDLER = Path(__file__).parents[2] / "examples" / "static_batching" / "handler.py"
_STATIC = StaticSettings(batch_size=8, max_batch_delay_s=0.06)
# How many decode at once in the steps that are timed; one alone, too.
_CONTINUOUS_STREAMS, _STATIC_STREAMS = (4, 16, 48), (4, 8)
# A turn begins when others have hardly any of the machine, if that comes, and is taken again where they had more of it after all.
_OTHERS_SHARE = 0.05
_ATTEMPTS = 4
_LOOK_S, _PATIENCE_S = 3.0, 300.0
_TABLE_WIDTH = 160
_FIGURES = {
    "tokens/s": lambda outcome: outcome.output_tokens_per_s,
    "latency p50, ms": lambda outcome: 1000 * outcome.latency.p50_s,
    "latency p99, ms": lambda outcome: 1000 * outcome.latency.p99_s,
    "first text p50, ms": lambda outcome: 1000 * outcome.first_token.p50_s,
    "first text p99, ms": lambda outcome: 1000 * outcome.first_token.p99_s,
}

T = TypeVar("T")


@dataclass(frozen=True)
class Load:
    """How many come, as a share of what the server is predicted to manage, and how long they keep coming."""

    share: float
    seconds: float
    prompt_tokens: Quantiles
    output_tokens: Quantiles

    def trace(self, capacity: float, seed: int) -> tuple[TraceRequest, ...]:
        """Draw the requests; ``capacity`` in requests a second."""
        rate = self.share * capacity
        return synthesize(rate, self.prompt_tokens, self.output_tokens, max(round(rate * self.seconds), 20), seed)


@dataclass(frozen=True)
class Comparison:
    """One replay: what was predicted, by the server's steps and by the engine's, what was measured, and how busy others were meanwhile."""

    model: str
    batching: str
    share: float
    rate: float
    timing: TimingModel
    server: Outcome
    engine: Outcome | None
    measured: Outcome
    others_share: float = 0.0


@dataclass(frozen=True)
class Bench:
    """One server with one model; ``engine``: steps of the engine alone, where there is one."""

    model: str
    api: Completions
    tokenizer: Tokenizer
    settings: Settings
    engine: Measurements | None

    @property
    def batching(self) -> str:
        """Continuous or static."""
        return "static" if isinstance(self.settings, StaticSettings) else "continuous"

    def time_steps(self, seed: str) -> Measurements:
        """Time the server's steps."""
        is_static = isinstance(self.settings, StaticSettings)
        wait_s, streams = (_STATIC.max_batch_delay_s, _STATIC_STREAMS) if is_static else (0.0, _CONTINUOUS_STREAMS)
        return StepTimer(partial(run_load, self.api), self.tokenizer, wait_s).measure(streams, seed)

    def turn(self, load: Load, capacity: float, seed: int) -> Comparison:
        """Replay a trace, with the steps timed before and after, and predict it."""
        name, trace = f"{seed}/{load.share}", load.trace(capacity, seed)
        before, measured, after = self.time_steps(f"{name} before"), self._replay(trace, name), self.time_steps(f"{name} after")
        timing = _fit(before, after)
        engine = replace(_fit(self.engine), request_overhead_s=timing.request_overhead_s) if self.engine else None
        return Comparison(
            self.model,
            self.batching,
            load.share,
            load.share * capacity,
            timing,
            simulate(trace, timing, self.settings),
            simulate(trace, engine, self.settings) if engine else None,
            measured,
        )

    def _replay(self, trace: Sequence[TraceRequest], seed: str) -> Outcome:
        jobs = [_job(request, f"{seed}/{number}", self.tokenizer) for number, request in enumerate(trace)]
        journal = Journal()
        for answer in run_open_loop(self.api, jobs, [request.arrival_s for request in trace]):
            if answer.error is None:
                journal.answers.append(Answer(answer.started_s, answer.text_times_s[0], answer.ended_s, answer.num_tokens))
            elif answer.error.startswith(("429", "503")):
                journal.num_refused += 1
            else:
                raise RuntimeError(f"a request failed: {answer.error}")
        return Outcome.of(journal)


def main(
    models: Annotated[str, typer.Option(help="tinychat, m15, m135 …, or paths of checkpoints")] = "tinychat",
    loads: Annotated[str, typer.Option(help="shares of the predicted capacity")] = "0.5,0.9,1.3",
    prompt_tokens: Annotated[str, typer.Option(help="P50,P95, log-normal")] = "64,192",
    output_tokens: Annotated[str, typer.Option(help="P50,P95, log-normal")] = "32,96",
    seconds: Annotated[float, typer.Option(help="how long requests come")] = 20.0,
    repeats: int = 3,
    cache: Annotated[Path, typer.Option(help="where made checkpoints are kept")] = CACHE,
    out: Annotated[Path | None, typer.Option(help="directory for simulate.json")] = None,
) -> None:
    """Run the benchmark, print a table a model, write JSON."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    console, machine = Console(width=_TABLE_WIDTH), Machine.here()
    prompts, outputs = (Quantiles(*map(int, lengths.split(","))) for lengths in (prompt_tokens, output_tokens))
    planned = [Load(float(share), seconds, prompts, outputs) for share in loads.split(",")]
    comparisons: list[Comparison] = []
    for model in models.split(","):
        found = list(_run_model(model, find_checkpoint(model, cache), planned, repeats, console))
        comparisons += found
        console.print(_table(model, found))
        if out:
            write_json(out / "simulate.json", machine, {"comparisons": comparisons})


def _run_model(model: str, checkpoint: Path, loads: Sequence[Load], repeats: int, console: Console) -> Iterator[Comparison]:
    tokenizer = PlainTokenizer(checkpoint)
    engine, _ = _quietly(partial(_engine_steps, checkpoint, tokenizer), console)
    console.print(f"{model}: the engine alone, {_fit(engine)}")
    for settings, alone in ((_continuous(checkpoint), engine), (_STATIC, None)):
        with _serving(checkpoint, settings) as server:
            bench = Bench(model, Completions(server.openai_base_url(), "llm"), tokenizer, settings, alone)
            bench.time_steps("warm-up")
            steps, _ = _quietly(partial(bench.time_steps, "capacity"), console)
            capacity = _capacity(replace(loads[0], share=1.0), _fit(steps), settings)
            for repeat, load in product(range(repeats), loads):
                console.print(f"{repeat + 1}/{repeats} {bench.batching} at {load.share:.0%} of {capacity:.1f} requests/s")
                comparison, others_share = _quietly(partial(bench.turn, load, capacity, repeat), console)
                yield replace(comparison, others_share=others_share)


def _quietly(measure: Callable[[], T], console: Console) -> tuple[T, float]:
    """Measure while others do little; return the result, and their share of the machine. If they never rest, it is the best of a few."""
    turns: list[tuple[T, float]] = []
    while len(turns) < _ATTEMPTS:
        _await_quiet()
        begin = Moment.now()
        turns.append((measure(), begin.others_share()))
        if turns[-1][1] <= _OTHERS_SHARE:
            break
        console.print(f"    others took {turns[-1][1]:.0%} of the machine")
    return min(turns, key=lambda turn: turn[1])


def _await_quiet() -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline_s:
        begin = Moment.now()
        time.sleep(_LOOK_S)
        if begin.others_share() <= _OTHERS_SHARE:
            return


def _engine_steps(checkpoint: Path, tokenizer: Tokenizer) -> Measurements:
    engine = InProcessEngine.of_checkpoint(checkpoint, tokenizer)
    try:
        timer = StepTimer(engine.run, tokenizer)
        timer.measure(_CONTINUOUS_STREAMS, "warm-up")
        return timer.measure(_CONTINUOUS_STREAMS, "engine")
    finally:
        engine.close()


def _continuous(checkpoint: Path) -> ContinuousSettings:
    """The defaults; these models are so small that every sequence can be as long as it likes."""
    max_model_len = Shape.of(checkpoint).max_tokens
    defaults = ContinuousSettings(num_blocks=max_model_len, max_model_len=max_model_len)
    return replace(defaults, num_blocks=defaults.max_running * max_model_len // defaults.block_tokens)


@contextmanager
def _serving(checkpoint: Path, settings: Settings) -> Iterator[TorchServe]:
    with tempfile.TemporaryDirectory() as scratch:
        options = PackagingOptions()
        if isinstance(settings, StaticSettings):
            config = Path(scratch) / "model-config.yaml"
            delay_ms = round(1000 * settings.max_batch_delay_s)
            config.write_text(yaml.safe_dump({"batchSize": settings.batch_size, "maxBatchDelay": delay_ms, "responseTimeout": 300}))
            options = PackagingOptions(handler=_STATIC_HANDLER, config=config)
        with TorchServe.start([prepare_model(checkpoint, name="llm", options=options)]) as server:
            yield server


def _fit(*turns: Measurements) -> TimingModel:
    overhead_s = statistics.mean(turn.request_overhead_s for turn in turns)
    return TimingModel.fit([step for turn in turns for step in turn.steps], overhead_s)


def _capacity(load: Load, timing: TimingModel, settings: Settings) -> float:
    """Predict how many requests a second are answered when all are there from the beginning, and wait."""
    patient = (
        replace(settings, max_waiting=10_000) if isinstance(settings, ContinuousSettings) else replace(settings, job_queue_size=10_000)
    )
    together = [replace(request, arrival_s=0.0) for request in load.trace(capacity=500 / load.seconds, seed=0)]
    return simulate(together, timing, patient).requests_per_s


def _job(request: TraceRequest, seed: str, tokenizer: Tokenizer) -> Job:
    prompt, output = (Lengths(tokens, tokens) for tokens in (request.prompt_tokens, request.output_tokens))
    return Workload(prompt, output).jobs(1, seed, tokenizer)[0]


def _table(model: str, comparisons: Sequence[Comparison]) -> Table:
    columns = ("batching", "load", "requests/s", "", "measured", "predicted", "error, %", "by the engine's steps, %")
    table = Table(*columns, title=f"{model}: medians of the repeats (lowest–highest)")
    for key in dict.fromkeys((each.batching, each.share) for each in comparisons):
        group = [each for each in comparisons if (each.batching, each.share) == key]
        for name, figure in _FIGURES.items():
            measured, server = [figure(each.measured) for each in group], [figure(each.server) for each in group]
            engine = [figure(each.engine) for each in group if each.engine]
            table.add_row(
                key[0],
                f"{key[1]:.0%}",
                f"{group[0].rate:.1f}",
                name,
                Spread.of(measured).show(),
                Spread.of(server).show(),
                _errors(server, measured),
                _errors(engine, measured) if engine else "–",
            )
        table.add_section()
    return table


def _errors(predicted: Sequence[float], measured: Sequence[float]) -> str:
    return Spread.of([100 * (guess / truth - 1) for guess, truth in zip(predicted, measured, strict=True)]).show()


if __name__ == "__main__":
    typer.run(main)
