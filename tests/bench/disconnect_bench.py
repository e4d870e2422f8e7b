"""Count the tokens that are generated for clients who have left: streamed and plain answers, beside others and as the last client.

    python -m tests.bench.disconnect_bench --trials 50 --out /tmp/disconnect

The worker counts them itself (``marquee_tokens_after_disconnect_total``), from the last message that it sent. Where the client is alone,
they are counted a second time, from the outside: all tokens that were generated, less those in the text that had arrived.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from archiver.deploy.launch import TorchServe
from archiver.deploy.prepare import PackagingOptions, prepare_model
from tests.bench.checkpoint import PlainTokenizer, choose_checkpoint
from tests.bench.report import Machine, write_json

_LONG, _NEIGHBOURS = 800, 7  # tokens of an abandoned answer; other clients, where there are any
_LEAVES_AFTER_S = (0.05, 0.8)
_RETURN_AFTER_S = 1.5  # when the next client comes after the last one left: past the engine's pause
_NOTICED_WITHIN_S = 60.0


@dataclass(frozen=True)
class Case:
    """Who leaves: from a streamed answer or a plain one, with other clients there or as the last."""

    stream: bool
    has_neighbours: bool

    def __str__(self) -> str:
        return f"{'streamed' if self.stream else 'plain'}, {f'beside {_NEIGHBOURS} others' if self.has_neighbours else 'the last client'}"


@dataclass(frozen=True)
class Trial:
    """Tokens generated in vain for one client: as the worker counts them, and (None if unknown) as the client does."""

    case: Case
    counted_by_worker: int
    counted_by_client: int | None


@dataclass(frozen=True)
class Counters:
    """The worker's totals."""

    cancelled: int
    generated: int
    wasted: int


def main(
    model: Annotated[Path | None, typer.Option(help="checkpoint; without it tinychat")] = None,
    trials: Annotated[int, typer.Option(help="disconnects in each of the four cases")] = 30,
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="directory for disconnect.json")] = None,
) -> None:
    """Run the benchmark, print a table, write JSON."""
    machine = Machine.here()
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint = choose_checkpoint(model, Path(scratch))
        config = Path(scratch, "model-config.yaml")
        config.write_text("handler: {stream: {hold_ms: 0}}\n")  # Who leaves while an answer is held back is not noticed so soon.
        with TorchServe.start([prepare_model(checkpoint, name="llm", options=PackagingOptions(config=config))]) as server:
            bench = Disconnects(server, PlainTokenizer(checkpoint), random.Random(seed))
            results = asyncio.run(bench.run(trials))
    Console().print(_table(results))
    if out:
        rows = [{"case": str(trial.case), "worker": trial.counted_by_worker, "client": trial.counted_by_client} for trial in results]
        write_json(out / "disconnect.json", machine, {"model": checkpoint.name, "trials": rows})


class Disconnects:
    """Clients that leave one server, one after the other."""

    def __init__(self, server: TorchServe, tokenizer: PlainTokenizer, rng: random.Random) -> None:
        self._url = f"{server.openai_base_url()}/completions"
        self._metrics_url = server.metrics_url
        self._tokenizer = tokenizer
        self._rng = rng

    async def run(self, trials: int) -> list[Trial]:
        """Return ``trials`` trials of each case."""
        results: list[Trial] = []
        async with httpx.AsyncClient(timeout=600, trust_env=False) as self._http:
            await self._complete(8)
            for case in (Case(stream, has_neighbours) for has_neighbours in (True, False) for stream in (True, False)):
                async with self._neighbours(_NEIGHBOURS if case.has_neighbours else 0):
                    results += [await self._trial(case) for _ in range(trials)]
                await self._settle()
        return results

    async def _trial(self, case: Case) -> Trial:
        before = await self._counters()
        received = await self._leave(case.stream)
        extra = 0
        if not case.has_neighbours:
            await asyncio.sleep(_RETURN_AFTER_S)
            extra = await self._complete(1)
        after = await self._counters_when(before.cancelled + 1)
        is_known = case.stream and not case.has_neighbours
        by_client = after.generated - before.generated - extra - len(self._tokenizer.encode(received)) if is_known else None
        return Trial(case, after.wasted - before.wasted, by_client)

    async def _leave(self, stream: bool) -> str:
        """Ask for a long answer, leave in the middle of it, and return the text that has arrived."""
        events = []
        with suppress(TimeoutError):
            async with asyncio.timeout(10) as deadline, self._http.stream("POST", self._url, json=_body(_LONG, stream)) as response:
                deadline.reschedule(asyncio.get_running_loop().time() + self._rng.uniform(*_LEAVES_AFTER_S))
                async for line in response.aiter_lines():
                    events.append(line)
        return "".join(_text(line) for line in events)

    async def _complete(self, num_tokens: int) -> int:
        (await self._http.post(self._url, json=_body(num_tokens, stream=False))).raise_for_status()
        return num_tokens

    @asynccontextmanager
    async def _neighbours(self, count: int) -> AsyncIterator[None]:
        async def stay() -> None:
            while True:
                await self._complete(_LONG // 2)

        tasks = [asyncio.create_task(stay()) for _ in range(count)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self) -> None:
        """Let the worker notice who has left, so that the next count begins with a clean slate."""
        await asyncio.sleep(_RETURN_AFTER_S)
        await self._complete(32)

    async def _counters_when(self, cancelled: int) -> Counters:
        async with asyncio.timeout(_NOTICED_WITHIN_S):
            while (counters := await self._counters()).cancelled < cancelled:
                await asyncio.sleep(0.05)
        return counters

    async def _counters(self) -> Counters:
        samples = re.findall(r"^(marquee_\w+_total)\{(.*)\} (\S+)$", (await self._http.get(self._metrics_url)).text, re.MULTILINE)
        return Counters(
            cancelled=_total(samples, "marquee_requests_total", 'status="cancelled"'),
            generated=_total(samples, "marquee_generated_tokens_total"),
            wasted=_total(samples, "marquee_tokens_after_disconnect_total"),
        )


def _total(samples: Sequence[tuple[str, str, str]], name: str, label: str = "") -> int:
    return int(sum(float(value) for sample, labels, value in samples if sample == name and label in labels))


def _body(num_tokens: int, stream: bool) -> dict[str, Any]:
    return {"prompt": "Tell me a long story about a fox.", "max_tokens": num_tokens, "temperature": 0, "ignore_eos": True, "stream": stream}


def _text(line: str) -> str:
    return "".join(choice["text"] for choice in json.loads(line[6:])["choices"]) if line.startswith("data: {") else ""


def _table(results: Sequence[Trial]) -> Table:
    table = Table("tokens after a disconnect", "trials", "p50", "p99", "most", "by the client's count: p50", "p99", "most")
    for case in dict.fromkeys(trial.case for trial in results):
        trials = [trial for trial in results if trial.case == case]
        by_worker = [trial.counted_by_worker for trial in trials]
        by_client = [trial.counted_by_client for trial in trials if trial.counted_by_client is not None]
        table.add_row(str(case), str(len(trials)), *_quantiles(by_worker), *_quantiles(by_client))
    return table


def _quantiles(counts: list[int]) -> tuple[str, str, str]:
    if not counts:
        return ("–", "–", "–")
    ranked = sorted(counts)
    p50, p99 = (ranked[min(int(q * len(ranked)), len(ranked) - 1)] for q in (0.50, 0.99))
    return str(p50), str(p99), str(ranked[-1])


if __name__ == "__main__":
    typer.run(main)
