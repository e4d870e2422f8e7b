"""Put a load on a server at the times of a trace, whether it keeps up or not: clients who do not wait for each other.

What arrives is only kept while they run, and read afterwards, as in ``load``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import httpx

from tests.bench.load import Answer, Api, Arrival, Transcript
from tests.bench.workload import Job

_TIMEOUT_S = 600.0


def run_open_loop(api: Api, jobs: Sequence[Job], arrivals_s: Sequence[float]) -> list[Answer]:
    """Send each job at its time, in seconds from now; return the answers in the order of the jobs when all are there."""
    return [_read(api, transcript) for transcript in asyncio.run(_send_all(api, jobs, arrivals_s))]


async def _send_all(api: Api, jobs: Sequence[Job], arrivals_s: Sequence[float]) -> list[Transcript]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits, trust_env=False) as http:
        start_s = time.perf_counter()
        clients = [_send(http, api, job, start_s + arrival_s) for job, arrival_s in zip(jobs, arrivals_s, strict=True)]
        return await asyncio.gather(*clients)


async def _send(http: httpx.AsyncClient, api: Api, job: Job, at_s: float) -> Transcript:
    await asyncio.sleep(max(at_s - time.perf_counter(), 0.0))
    status, arrivals, failure = 0, [], None
    try:
        async with http.stream("POST", api.url, **api.body(job)) as response:
            status = response.status_code
            async for data in response.aiter_raw():
                arrivals.append(Arrival(time.perf_counter(), data))
    except httpx.HTTPError as error:
        failure = repr(error)
    # Counted from when it was due: a client that is late, because the machine is busy, has waited too.
    return Transcript(job, at_s, time.perf_counter(), status, tuple(arrivals), failure)


def _read(api: Api, transcript: Transcript) -> Answer:
    if transcript.failure or transcript.status != httpx.codes.OK:
        error = transcript.failure or f"{transcript.status}: {transcript.body[:200].decode(errors='replace')}"
        return Answer(transcript.started_s, transcript.ended_s, error=error)
    return api.read(transcript)
