"""Put load on a server: so many clients, each of which sends its next request when the last one is answered.

What arrives is only kept while the clients run, and read afterwards: on a machine where server and clients share the cores, parsing events
would be part of what is measured.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from tests.bench.workload import Job

_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Arrival:
    """A piece of a response's body; ``at_s`` on the performance counter."""

    at_s: float
    data: bytes


@dataclass(frozen=True)
class Transcript:
    """One request as it went over the wire. ``failure`` when there was no whole response."""

    job: Job
    started_s: float
    ended_s: float
    status: int = 0
    arrivals: tuple[Arrival, ...] = ()
    failure: str | None = None

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(arrival.data for arrival in self.arrivals)


@dataclass(frozen=True)
class Answer:
    """What a client got, and when: ``text_times_s`` are the arrivals of text, which may be of several tokens at once."""

    started_s: float
    ended_s: float
    text_times_s: tuple[float, ...] = ()
    num_tokens: int = 0
    error: str | None = None
    text: str = ""


@dataclass(frozen=True)
class Run:
    """The answers to one set of jobs, in their order; ``client_cpu_s`` is what the clients themselves took of the machine."""

    streams: int
    answers: tuple[Answer, ...]
    client_cpu_s: float

    @property
    def wall_s(self) -> float:
        """From the first request to the last answer."""
        return max(answer.ended_s for answer in self.answers) - min(answer.started_s for answer in self.answers)


class Api(Protocol):
    """How a job is put to a server, and how its answer is read."""

    @property
    def url(self) -> str: ...

    def body(self, job: Job) -> dict[str, Any]:
        """Return the request's body and headers as httpx's ``stream`` takes them."""

    def read(self, transcript: Transcript) -> Answer:
        """Read a response with status 200; raises ValueError where it cannot be read."""


@dataclass(frozen=True)
class Completions:
    """Streamed ``/completions`` of the OpenAI API, greedy, of a fixed length; tokens are counted by the server (``include_usage``).

    ``fixed_length``: what makes this server go on where the model would end.
    """

    base_url: str
    model: str
    fixed_length: Mapping[str, Any] = field(default_factory=lambda: {"ignore_eos": True})
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where requests go."""
        return f"{self.base_url}/completions"

    def body(self, job: Job) -> dict[str, Any]:
        """Return a request that generates exactly the tokens asked for."""
        request = {"model": self.model, "prompt": job.prompt, "max_tokens": job.num_output_tokens, "temperature": 0}
        streamed = {"stream": True, "stream_options": {"include_usage": True}}
        return {"json": request | streamed | self.fixed_length, "headers": self.headers}

    def read(self, transcript: Transcript) -> Answer:
        """Read the events; one that has no text, or an answer of another length, is no success."""
        text_times_s: list[float] = []
        num_tokens, text, error = 0, "", None
        for at_s, event in _events(transcript.arrivals):
            piece = "".join(choice["text"] for choice in event.get("choices", ()))
            if piece and at_s not in text_times_s[-1:]:
                text_times_s.append(at_s)
            text += piece
            num_tokens = (event.get("usage") or {}).get("completion_tokens", num_tokens)
            error = event.get("error") or error
        if error is None and num_tokens != transcript.job.num_output_tokens:
            error = f"{num_tokens} tokens instead of {transcript.job.num_output_tokens}"
        return Answer(transcript.started_s, transcript.ended_s, tuple(text_times_s), num_tokens, str(error) if error else None, text)


@dataclass(frozen=True)
class Predictions:
    """TorchServe's own API: a prompt as plain text in, prompt and continuation out, at once.

    The handler behind it generates the same number of tokens for every request, at least as many as any job asks for. A request counts for
    what it asked for: the rest is of no use to its client. (Encoding the text again would not do as a count, because what was generated
    as two tokens may be encoded as one.)
    """

    url: str

    def body(self, job: Job) -> dict[str, Any]:
        """Return the prompt."""
        return {"content": job.prompt.encode(), "headers": {"Content-Type": "text/plain"}}

    def read(self, transcript: Transcript) -> Answer:
        """Take the whole text as the first: the client sees nothing before."""
        job, ended_s, text = transcript.job, transcript.ended_s, transcript.body.decode()
        if len(text) <= len(job.prompt):
            return Answer(transcript.started_s, ended_s, error="no text")
        return Answer(transcript.started_s, ended_s, (ended_s,), job.num_output_tokens, text=text[len(job.prompt) :])


def run_load(api: Api, jobs: Sequence[Job], streams: int) -> Run:
    """Have ``streams`` clients work through ``jobs``; return when all are answered."""
    cpu_s = time.process_time()
    transcripts = asyncio.run(_all_clients(api, jobs, streams))
    cpu_s = time.process_time() - cpu_s
    return Run(streams, tuple(read_answer(api, transcript) for transcript in transcripts), cpu_s)


async def _all_clients(api: Api, jobs: Sequence[Job], streams: int) -> list[Transcript]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits, trust_env=False) as http:
        waiting = enumerate(jobs)
        transcripts: dict[int, Transcript] = {}
        await asyncio.gather(*(_one_client(http, api, waiting, transcripts) for _ in range(streams)))
        return [transcripts[number] for number in range(len(jobs))]


async def _one_client(http: httpx.AsyncClient, api: Api, waiting: Iterator[tuple[int, Job]], transcripts: dict[int, Transcript]) -> None:
    for number, job in waiting:  # shared by all clients: each takes the next one
        transcripts[number] = await ask(http, api, job)


async def ask(http: httpx.AsyncClient, api: Api, job: Job) -> Transcript:
    """Send one request and keep what comes, unread."""
    status, arrivals, failure = 0, [], None
    started_s = time.perf_counter()
    try:
        async with http.stream("POST", api.url, **api.body(job)) as response:
            status = response.status_code
            async for data in response.aiter_raw():
                arrivals.append(Arrival(time.perf_counter(), data))
    except httpx.HTTPError as error:
        failure = repr(error)
    return Transcript(job, started_s, time.perf_counter(), status, tuple(arrivals), failure)


def read_answer(api: Api, transcript: Transcript) -> Answer:
    """Return what a transcript says; a request that failed is an answer with an error."""
    if transcript.failure or transcript.status != httpx.codes.OK:
        error = transcript.failure or f"{transcript.status}: {transcript.body[:200].decode(errors='replace')}"
        return Answer(transcript.started_s, transcript.ended_s, error=error)
    try:
        return api.read(transcript)
    except ValueError as error:
        return Answer(transcript.started_s, transcript.ended_s, error=f"unreadable: {error}")


def _events(arrivals: Sequence[Arrival]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Yield server-sent events with the time at which each was whole: lines of JSON (``data: {…}``), and perhaps comments (``:``)."""
    rest = b""
    for arrival in arrivals:
        *events, rest = (rest + arrival.data).split(b"\n\n")
        for event in events:
            for line in event.splitlines():
                data = line.removeprefix(b"data: ")
                if data not in (line, b"[DONE]"):
                    yield arrival.at_s, json.loads(data)
