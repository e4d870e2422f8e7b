"""How soon a full server refuses: 429s while every place is taken, one client after the other and many at once.

    python -m tests.bench.overload_bench --repeats 3

The server runs 8 sequences and lets 8 wait; 16 clients with long answers keep it full. What is refused is asked with a prompt of 5 KB.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from rich.console import Console
from rich.table import Table

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from archiver.package import ArchiveSpec, build_archive
from tests.bench.report import Machine, write_json
from tests.bench.scaling_bench import TINYCHAT

_PLACES = 16
_LONG = {"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": True}
_REFUSED = {"prompt": "Tell me a story. " * 300, "max_tokens": 5}


def main(
    trials: Annotated[int, typer.Option(help="refused requests, one after the other")] = 60,
    burst: Annotated[int, typer.Option(help="refused requests at once")] = 8,
    repeats: int = 3,
    out: Annotated[Path | None, typer.Option(help="directory for the figures as JSON")] = None,
) -> None:
    """Measure and print a table."""
    machine = Machine.here()
    times: dict[str, list[float]] = {"one by one": [], f"{burst} at once": []}
    engine = {"max_running": _PLACES // 2, "max_waiting": _PLACES // 2}
    with tempfile.TemporaryDirectory() as scratch:
        archive = build_archive(ArchiveSpec(TINYCHAT, "full", out=Path(scratch), format="dir", settings={"engine": engine}))
        with TorchServe.start([ServedModel.from_archive(archive)]) as server:
            for _ in range(repeats):
                for name, found in zip(times, asyncio.run(_measure(f"{server.openai_base_url()}/completions", trials, burst)), strict=True):
                    times[name] += found
    table = Table("refused", "requests", "median ms", "90 %", "99 %", "longest")
    for name, found in times.items():
        table.add_row(name, str(len(found)), *(f"{_quantile(found, share) * 1000:.0f}" for share in (0.5, 0.9, 0.99, 1.0)))
    Console().print(table)
    if out:
        write_json(out / "overload.json", machine, {"seconds": times})


async def _measure(url: str, trials: int, burst: int) -> tuple[list[float], list[float]]:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as http:
        full = [asyncio.create_task(_keep_asking(http, url)) for _ in range(_PLACES)]
        await asyncio.sleep(1.0)
        one_by_one = [time_s for _ in range(trials) if (time_s := await _refusal_s(http, url)) is not None]
        await asyncio.gather(*(http.get(f"{url.split('/predictions')[0]}/ping") for _ in range(burst)))  # connections are open before
        at_once = await asyncio.gather(*(_refusal_s(http, url) for _ in range(burst)))
        for task in full:
            task.cancel()
    return one_by_one, [time_s for time_s in at_once if time_s is not None]


async def _keep_asking(http: httpx.AsyncClient, url: str) -> None:
    while True:
        await http.post(url, json=_LONG)


async def _refusal_s(http: httpx.AsyncClient, url: str) -> float | None:
    """Return how long the refusal took; None if there happened to be a place."""
    begun_s = time.perf_counter()
    response = await http.post(url, json=_REFUSED)
    taken_s = time.perf_counter() - begun_s
    return taken_s if response.status_code == 429 and _says_when(response) else None


def _says_when(response: httpx.Response) -> bool:
    return int(response.headers["Retry-After"]) >= 1


def _quantile(values: Sequence[float], share: float) -> Any:
    ranked = sorted(values)
    return ranked[min(int(share * len(ranked)), len(ranked) - 1)] if ranked else float("nan")


if __name__ == "__main__":
    typer.run(main)
