"""Measure tokens a second and latencies of a checkpoint through TorchServe, beside the deployment guide's handler and the bare engine.

    python -m tests.bench.serving_bench --repeats 5 --out /tmp/serving

Contestants take turns (A B A B …) at each number of streams, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from archiver.deploy.launch import TorchServe
from archiver.deploy.prepare import prepare_model
from tests.bench.checkpoint import PlainTokenizer, choose_checkpoint
from tests.bench.figures import Figures, Summary, summarise
from tests.bench.in_process import InProcessEngine
from tests.bench.load import Completions, Predictions, Run, run_load
from tests.bench.plot import plot_serving
from tests.bench.report import Machine, write_json
from tests.bench.textbook import package_textbook
from tests.bench.workload import Job, Lengths, Tokenizer, Workload

MARQUEE, TEXTBOOK, ENGINE = "marquee", "textbook", "engine alone"
_TABLE_WIDTH = 170

Contestant = Callable[[Sequence[Job], int], Run]
"""Works through jobs with so many streams."""


def main(
    model: Annotated[Path | None, typer.Option(help="checkpoint; without it tinychat")] = None,
    streams: Annotated[str, typer.Option(help="numbers of streams at which the two servers meet")] = "1,8,32",
    engine_streams: Annotated[str, typer.Option(help="numbers of streams for ours beside the bare engine")] = "32,64",
    prompt_tokens: Annotated[str, typer.Option(help="LOW:HIGH, log-uniform")] = "16:256",
    output_tokens: Annotated[str, typer.Option(help="LOW:HIGH, log-uniform")] = "16:64",
    rounds: Annotated[int, typer.Option(help="requests a stream, but 16 in all at least")] = 4,
    repeats: int = 3,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="directory for serving.json and serving.png")] = None,
) -> None:
    """Run the benchmark, print a table, write JSON and a plot."""
    console, machine = Console(), Machine.here()
    workload = Workload(Lengths.parse(prompt_tokens), Lengths.parse(output_tokens))
    plan = _plan(_numbers(streams), _numbers(engine_streams))
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = choose_checkpoint(model, Path(scratch))
        tokenizer = PlainTokenizer(checkpoint)
        with _contestants(checkpoint, Path(scratch), tokenizer, workload.output_tokens.high) as contestants:
            _warm_up(contestants, workload, tokenizer)
            for repeat in range(repeats):
                for num_streams, names in plan.items():
                    jobs = workload.jobs(max(16, rounds * num_streams), f"{seed}/{repeat}/{num_streams}", tokenizer)
                    for name in names:
                        figures.append(Figures.of(name, contestants[name](jobs, num_streams)))
                        console.print(f"{repeat + 1}/{repeats} {num_streams:3} streams {name:12} {figures[-1].tokens_per_s:6.0f} tokens/s")
    summaries = summarise(figures, reference=MARQUEE)
    Console(width=max(console.width, _TABLE_WIDTH)).print(_table(summaries))
    if out:
        results = {"model": checkpoint.name, "workload": workload, "rounds": rounds, "summary": summaries, "runs": figures}
        write_json(out / "serving.json", machine, results)
        plot_serving(summaries, out / "serving.png")


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",") if number]


def _plan(streams: Sequence[int], engine_streams: Sequence[int]) -> dict[int, list[str]]:
    """Return who runs at which number of streams."""
    plan = {each: [MARQUEE] for each in sorted({*streams, *engine_streams})}
    for each, names in plan.items():
        names += [TEXTBOOK] * (each in streams) + [ENGINE] * (each in engine_streams)
    return plan


@contextmanager
def _contestants(checkpoint: Path, scratch: Path, tokenizer: Tokenizer, num_tokens: int) -> Iterator[Mapping[str, Contestant]]:
    """Have both servers and the engine at hand; whoever is not asked does nothing."""
    with ExitStack() as stack:
        ours = stack.enter_context(TorchServe.start([prepare_model(checkpoint, name="llm")]))
        textbook = stack.enter_context(TorchServe.start([package_textbook(checkpoint, scratch, num_tokens)]))
        engine = InProcessEngine(checkpoint, tokenizer)
        stack.callback(engine.close)
        yield {
            MARQUEE: partial(run_load, Completions(ours.openai_base_url(), "llm")),
            TEXTBOOK: partial(run_load, Predictions(textbook.prediction_url())),
            ENGINE: engine.run,
        }


def _warm_up(contestants: Mapping[str, Contestant], workload: Workload, tokenizer: Tokenizer) -> None:
    for name, contestant in contestants.items():
        contestant(workload.jobs(16, f"warm-up {name}", tokenizer), 8)


def _table(summaries: Sequence[Summary]) -> Table:
    columns = ("streams", "", "tokens/s", "marquee ÷ this", "first text p50 ms", "p99", "gap p50 ms", "p99", "ms/token", "errors")
    table = Table(*columns, title="median (lowest–highest) of the repeats")
    for each in summaries:
        times = (each.first_text_p50_ms, each.first_text_p99_ms, each.gap_p50_ms, each.gap_p99_ms)
        table.add_row(
            str(each.streams),
            each.contestant,
            each.tokens_per_s.show(),
            each.lead.show(2),
            *(time.show() for time in times),
            each.token_p50_ms.show(1),
            str(each.num_errors),
        )
    return table


if __name__ == "__main__":
    typer.run(main)
