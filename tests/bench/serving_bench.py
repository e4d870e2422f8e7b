"""Measure tokens a second and latencies of checkpoints: ours, beside the bare engine, the deployment guide's handler, and peers.

    python -m tests.bench.serving_bench --models m15,m135 --contestants all --repeats 3 --out /tmp/serving

Contestants take turns (A B B A …) at each number of streams, so that whatever else the machine does meets all of them; who is not asked
sleeps (SIGSTOP). Each turn has fresh random prompts, the same for all, so that no prefix cache helps. Peers are installed beforehand:
``python -m tests.bench.peers.catalogue``, or ``--install``.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.bench.bounds import Bounds, bounds_table, measure_bounds
from tests.bench.checkpoint import PlainTokenizer, find_checkpoint
from tests.bench.contestants import ENGINE, MARQUEE, NAMES, TEXTBOOK, Arena, Contestant, check_names, install_peers, start_all
from tests.bench.figures import Figures, Summary, summarise
from tests.bench.models import CACHE, Shape
from tests.bench.peers.peer import Capacity
from tests.bench.plot import plot_serving
from tests.bench.report import Machine, write_json
from tests.bench.workload import Lengths, Tokenizer, Workload

_TABLE_WIDTH = 190
_SLACK_TOKENS = 64  # encoded again, a prompt may come out a little longer than it was drawn
_WARM_UP_STREAMS = 8


@dataclass(frozen=True)
class Plan:
    """What is run: who, at which numbers of streams, with how many requests, how often."""

    contestants: Sequence[str]
    streams: Sequence[int]
    workload: Workload
    rounds: int
    repeats: int
    seed: int

    @property
    def capacity(self) -> Capacity:
        """What every server must hold."""
        tokens = self.workload.prompt_tokens.high + self.workload.output_tokens.high
        return Capacity(max(*self.streams, _WARM_UP_STREAMS), tokens + _SLACK_TOKENS)

    def num_requests(self, streams: int) -> int:
        """Return the requests of a turn, 8 at least."""
        return max(8, self.rounds * streams)


def main(
    models: Annotated[str, typer.Option(help="tinychat, m15, m135 …, or paths of checkpoints")] = "tinychat",
    contestants: Annotated[str, typer.Option(help=f"of {', '.join(NAMES)}, or all; the others are compared with the first")] = (
        f"{MARQUEE},{TEXTBOOK},{ENGINE}"
    ),
    streams: Annotated[str, typer.Option(help="numbers of streams")] = "1,8,32",
    prompt_tokens: Annotated[str, typer.Option(help="LOW:HIGH, log-uniform")] = "16:256",
    output_tokens: Annotated[str, typer.Option(help="LOW:HIGH, log-uniform")] = "16:64",
    rounds: Annotated[int, typer.Option(help="requests a stream, but 8 in all at least")] = 3,
    repeats: int = 3,
    seed: int = 0,
    quick: Annotated[bool, typer.Option("--quick", help="one repeat of two requests a stream")] = False,
    install: Annotated[bool, typer.Option("--install", help="install peers that are missing")] = False,
    cache: Annotated[Path, typer.Option(help="where peers and made checkpoints are kept")] = CACHE,
    out: Annotated[Path | None, typer.Option(help="directory for serving.json and a PNG a model")] = None,
) -> None:
    """Run the benchmark, print a table a model, write JSON and plots."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    console, machine = Console(width=_TABLE_WIDTH), Machine.here()
    plan = Plan(
        contestants=NAMES if contestants == "all" else contestants.split(","),
        streams=[int(number) for number in streams.split(",")],
        workload=Workload(Lengths.parse(prompt_tokens), Lengths.parse(output_tokens)),
        rounds=2 if quick else rounds,
        repeats=1 if quick else repeats,
        seed=seed,
    )
    check_names(plan.contestants)
    if install:
        install_peers(plan.contestants, cache)
    results = {}
    for model in models.split(","):
        figures, bounds = run_model(find_checkpoint(model, cache), plan, cache, console)
        summaries = summarise(figures, reference=figures[0].contestant)
        console.print(_table(model, summaries, bounds, plan.workload), bounds_table(bounds))
        results[model] = {"bounds": bounds, "summary": summaries, "runs": figures}
        if out:
            write_json(out / "serving.json", machine, {"plan": plan, "models": results})
            plot_serving(summaries, out / f"{Path(model).name}.png", model)


def run_model(checkpoint: Path, plan: Plan, cache: Path, console: Console) -> tuple[list[Figures], Bounds]:
    """Start everybody, have them take turns; one that does not start is left out, with its complaint on the console."""
    tokenizer = PlainTokenizer(checkpoint)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        arena = Arena(checkpoint, tokenizer, plan.capacity, plan.workload.output_tokens.high, cache, scratch)
        contestants = stack.enter_context(start_all(plan.contestants, arena, console.print))
        if not contestants:
            raise SystemExit("nobody started")
        for name, contestant in contestants.items():
            contestant.run(plan.workload.jobs(16, f"warm-up {name}", tokenizer), _WARM_UP_STREAMS)
        bounds = measure_bounds(Shape.of(checkpoint), plan.streams)
        return _take_turns(contestants, plan, tokenizer, console), bounds


def _take_turns(contestants: Mapping[str, Contestant], plan: Plan, tokenizer: Tokenizer, console: Console) -> list[Figures]:
    figures = []
    for repeat in range(plan.repeats):
        for streams in plan.streams:
            jobs = plan.workload.jobs(plan.num_requests(streams), f"{plan.seed}/{repeat}/{streams}", tokenizer)
            # Forwards and backwards, because who comes after whom makes a difference: caches, clock rates.
            for name in sorted(contestants, key=list(contestants).index, reverse=repeat % 2 == 1):
                contestant = contestants[name]
                run = contestant.run(jobs, streams)
                figures.append(Figures.of(name, run, contestant.rss_bytes()))
                console.print(f"{repeat + 1}/{plan.repeats} {streams:3} streams {name:16} {figures[-1].tokens_per_s:6.0f} tokens/s")
                for error in {answer.error for answer in run.answers if answer.error}:
                    console.print(f"    {error}", markup=False)
    return figures


def _table(model: str, summaries: Sequence[Summary], bounds: Bounds, workload: Workload) -> Table:
    columns = ("streams", "", "tokens/s", f"{summaries[0].contestant} ÷ this", "of operator bound", "of memory bound")
    times = ("first text p50 ms", "p99", "gap p50 ms", "p99", "ms/token", "RSS MiB", "errors")
    table = Table(*columns, *times, title=f"{model}: medians of the repeats (lowest–highest)")
    for each in summaries:
        operators = bounds.operator_tokens_per_s(each.streams, workload)
        memory = bounds.memory_tokens_per_s(each.streams)
        latencies = (each.first_text_p50_ms, each.first_text_p99_ms, each.gap_p50_ms, each.gap_p99_ms)
        table.add_row(
            str(each.streams),
            each.contestant,
            each.tokens_per_s.show(),
            each.lead.show(2),
            f"{each.tokens_per_s.median / operators:.0%} of {operators:.0f}",
            f"{each.tokens_per_s.median / memory:.0%} of {memory:.0f}",
            *(f"{latency.median:.0f}" for latency in latencies),
            f"{each.token_p50_ms.median:.1f}",
            f"{each.rss_mib.median:.0f}",
            str(each.num_errors),
        )
    return table


if __name__ == "__main__":
    typer.run(main)
