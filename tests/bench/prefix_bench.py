"""Measure what a cached prefix is worth: prompts that begin with the same long system prompt, and chats of several turns.

    python -m tests.bench.prefix_bench --models m15,m135 --contestants marquee,vllm,llamacpp --out /tmp/prefix

Each row compares requests whose beginning the server has not seen (``cold``) with others whose beginning it has (``warm``). Shared prefix:
each request with a system prompt of its own; all with one that was asked for before. Chats: the first turn; the turns after it, whose
prompts hold the whole chat so far. Contestants take turns, and all prompts are fresh, as in serving_bench.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.bench.checkpoint import PlainTokenizer, find_checkpoint
from tests.bench.contestants import MARQUEE, PEERS, Arena, Contestant, check_names, install_peers, start_all
from tests.bench.figures import Figures, Spread
from tests.bench.load import Run
from tests.bench.models import CACHE
from tests.bench.peers.peer import Capacity
from tests.bench.report import Machine, write_json
from tests.bench.workload import Lengths, Tokenizer, Workload

_QUESTIONS = Workload(Lengths(16, 64), Lengths(16, 32))
_TURNS = 4
_REQUESTS_A_STREAM = 4
_SLACK_TOKENS = 64
_TABLE_WIDTH = 150

Case = Callable[[Contestant, int, str], tuple[Run, Run]]
"""Runs a contestant with so many streams and a seed; returns its cold run and its warm one."""


@dataclass(frozen=True)
class Plan:
    """What is run: who, at which numbers of streams, with how long a shared prompt, how often."""

    contestants: Sequence[str]
    streams: Sequence[int]
    prefix_tokens: int
    repeats: int
    seed: int

    @property
    def capacity(self) -> Capacity:
        """What every server must hold."""
        question = _QUESTIONS.prompt_tokens.high + _QUESTIONS.output_tokens.high
        return Capacity(max(self.streams), max(self.prefix_tokens + question, _TURNS * question) + _SLACK_TOKENS)

    def cases(self, tokenizer: Tokenizer) -> dict[str, Case]:
        """Return the rows' kinds by name."""
        shared = partial(run_shared_prefix, self.prefix_tokens, tokenizer)
        return {f"{self.prefix_tokens} shared tokens": shared, f"{_TURNS} turns": partial(run_chats, tokenizer)}


@dataclass(frozen=True)
class Comparison:
    """One turn of one contestant: the same kind of requests without and with a cached beginning."""

    case: str
    cold: Figures
    warm: Figures

    @property
    def first_text_ratio(self) -> float:
        """Time to the first text of warm requests, of that of cold ones (medians)."""
        return self.warm.first_text.p50_ms / self.cold.first_text.p50_ms


def main(
    models: Annotated[str, typer.Option(help="tinychat, m15, m135 …, or paths of checkpoints")] = "m15",
    contestants: Annotated[str, typer.Option(help="who streams; or all")] = MARQUEE,
    streams: Annotated[str, typer.Option(help="numbers of streams")] = "1,8",
    prefix_tokens: Annotated[int, typer.Option(help="length of the shared system prompt")] = 1000,
    repeats: int = 3,
    seed: int = 0,
    install: Annotated[bool, typer.Option("--install", help="install peers that are missing")] = False,
    cache: Annotated[Path, typer.Option(help="where peers and made checkpoints are kept")] = CACHE,
    out: Annotated[Path | None, typer.Option(help="directory for prefix.json")] = None,
) -> None:
    """Run the benchmark, print a table a model, write JSON."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that servers are stopped
    console, machine = Console(width=_TABLE_WIDTH), Machine.here()
    names = [MARQUEE, *PEERS] if contestants == "all" else contestants.split(",")
    plan = Plan(names, [int(number) for number in streams.split(",")], prefix_tokens, repeats, seed)
    check_names(plan.contestants)
    if install:
        install_peers(plan.contestants, cache)
    results = {}
    for model in models.split(","):
        results[model] = run_model(find_checkpoint(model, cache), plan, cache, console)
        console.print(_table(model, results[model]))
        if out:
            write_json(out / "prefix.json", machine, {"plan": plan, "models": results})


def run_model(checkpoint: Path, plan: Plan, cache: Path, console: Console) -> list[Comparison]:
    """Start everybody, have them take turns; one that does not start is left out, with its complaint on the console."""
    tokenizer = PlainTokenizer(checkpoint)
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        arena = Arena(checkpoint, tokenizer, plan.capacity, _QUESTIONS.output_tokens.high, cache, scratch)
        contestants = stack.enter_context(start_all(plan.contestants, arena, console.print))
        for name, contestant in contestants.items():
            contestant.run(_QUESTIONS.jobs(8, f"warm-up {name}", tokenizer), max(plan.streams))
        return _take_turns(contestants, plan, tokenizer, console)


def _take_turns(contestants: Mapping[str, Contestant], plan: Plan, tokenizer: Tokenizer, console: Console) -> list[Comparison]:
    comparisons = []
    for repeat, (case, run), streams in product(range(plan.repeats), plan.cases(tokenizer).items(), plan.streams):
        for name, contestant in contestants.items():
            cold, warm = run(contestant, streams, f"{plan.seed}/{repeat}/{streams}")
            comparisons.append(Comparison(case, Figures.of(name, cold), Figures.of(name, warm)))
            console.print(f"{repeat + 1}/{plan.repeats} {case} {streams:3} streams {name:16} {comparisons[-1].first_text_ratio:.3f}")
    return comparisons


def run_shared_prefix(prefix_tokens: int, tokenizer: Tokenizer, contestant: Contestant, streams: int, seed: str) -> tuple[Run, Run]:
    """Ask with a prefix a request; then with one for all, which one request before has brought into the cache."""
    prefixes = Workload(Lengths(prefix_tokens, prefix_tokens), Lengths(1, 1))
    questions = _QUESTIONS.jobs(2 * _REQUESTS_A_STREAM * streams + 1, seed, tokenizer)
    own = [prefix.prompt for prefix in prefixes.jobs(_REQUESTS_A_STREAM * streams, f"own {seed}", tokenizer)]
    [shared] = [prefix.prompt for prefix in prefixes.jobs(1, f"shared {seed}", tokenizer)]
    first, *rest = [replace(job, prompt=shared + job.prompt) for job in questions[len(own) :]]
    cold = contestant.run([replace(job, prompt=prefix + job.prompt) for prefix, job in zip(own, questions, strict=False)], streams)
    contestant.run([first], 1)
    return cold, contestant.run(rest, streams)


def run_chats(tokenizer: Tokenizer, contestant: Contestant, streams: int, seed: str) -> tuple[Run, Run]:
    """Have a chat a stream; all have a turn before any has the next."""
    chats = [""] * streams
    runs = []
    for turn in range(_TURNS):
        questions = _QUESTIONS.jobs(streams, f"{seed}/{turn}", tokenizer)
        jobs = [replace(job, prompt=chat + job.prompt) for chat, job in zip(chats, questions, strict=True)]
        runs.append(contestant.run(jobs, streams))
        chats = [job.prompt + answer.text for job, answer in zip(jobs, runs[-1].answers, strict=True)]
    later = [answer for run in runs[1:] for answer in run.answers]
    return runs[0], Run(streams, tuple(later), sum(run.client_cpu_s for run in runs[1:]))


def _table(model: str, comparisons: Sequence[Comparison]) -> Table:
    columns = ("", "streams", "", "first text p50 ms, cold", "warm", "warm ÷ cold", "tokens/s, cold", "warm", "errors")
    table = Table(*columns, title=f"{model}: median (lowest–highest) of the repeats")
    for key in dict.fromkeys((each.case, each.cold.streams, each.cold.contestant) for each in comparisons):
        group = [each for each in comparisons if (each.case, each.cold.streams, each.cold.contestant) == key]
        table.add_row(
            key[0],
            str(key[1]),
            key[2],
            Spread.of([each.cold.first_text.p50_ms for each in group]).show(),
            Spread.of([each.warm.first_text.p50_ms for each in group]).show(),
            Spread.of([each.first_text_ratio for each in group]).show(3),
            Spread.of([each.cold.tokens_per_s for each in group]).show(),
            Spread.of([each.warm.tokens_per_s for each in group]).show(),
            str(sum(each.cold.num_errors + each.warm.num_errors for each in group)),
        )
    return table


if __name__ == "__main__":
    typer.run(main)
