"""Put a load on a server at the times of a trace, whether it keeps up or not: clients who do not wait for each other.

What arrives is only kept while they run, and read afterwards, as in ``load``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

import httpx

from tests.bench.load import Answer, Api, Transcript, ask, read_answer
from tests.bench.workload import Job

_TIMEOUT_S = 600.0


def run_open_loop(api: Api, jobs: Sequence[Job], arrivals_s: Sequence[float]) -> list[Answer]:
    """Send each job at its time, in seconds from now; return the answers in the order of the jobs when all are there."""
    return [read_answer(api, transcript) for transcript in asyncio.run(_send_all(api, jobs, arrivals_s))]


async def _send_all(api: Api, jobs: Sequence[Job], arrivals_s: Sequence[float]) -> list[Transcript]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits, trust_env=False) as http:
        start_s = time.perf_counter()
        clients = [_send(http, api, job, start_s + arrival_s) for job, arrival_s in zip(jobs, arrivals_s, strict=True)]
        return await asyncio.gather(*clients)


async def _send(http: httpx.AsyncClient, api: Api, job: Job, at_s: float) -> Transcript:
    """Ask at the time, and count from when it was due: a client that is late, because the machine is busy, has waited too."""
    await asyncio.sleep(max(at_s - time.perf_counter(), 0.0))
    return replace(await ask(http, api, job), started_s=at_s)
