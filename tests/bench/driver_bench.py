"""Measure what a step costs the worker beside the engine: reading the frontend's message, the driver, and writing the answer.

    python -m tests.bench.driver_bench --streams 1,8,64 --steps 300

TorchServe's own reader, service and writer run in this process with the default handler; its engine is a stand-in that has one more token
for every stream at every step, and its socket one half of a pair. The other half, the frontend's, costs nothing here.
"""

from __future__ import annotations

import cProfile
import itertools
import pstats
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import typer

from handlers import CausalLMHandler
from handlers.config import HandlerConfig
from handlers.driver import Cadence, ContinuousDriver
from handlers.engine.client import Event
from handlers.requests import SamplingParams
from handlers.text.tokenizer import TextTokenizer
from handlers.torchserve_worker import adapt_worker, serve_directly
from tests.bench.report import Machine, write_json
from tests.checkpoints import make_tokenizer
from tests.fakes import FakeEngine, make_context, predict_message

_TEXT = "the quick brown fox jumps over the lazy dog and then it does so again and again; grüß dich, 日本 "
_BODY = b'{"messages": [{"role": "user", "content": "Tell me a story."}], "stream": true, "max_tokens": 100000}'
_HEADERS = {
    "url_path": "v1/chat/completions",
    "Host": "127.0.0.1:8080",
    "Accept-Encoding": "gzip, deflate",
    "Connection": "keep-alive",
    "Accept": "application/json",
    "Content-Type": "application/json",
    "User-Agent": "OpenAI/Python 2.41.0",
    "X-Stainless-Lang": "python",
    "X-Stainless-Package-Version": "2.41.0",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Runtime": "CPython",
    "X-Stainless-Runtime-Version": "3.12.0",
    "Authorization": "Bearer unused",
    "X-Stainless-Async": "async:asyncio",
    "x-stainless-retry-count": "0",
    "x-stainless-read-timeout": "600",
    "Content-Length": str(len(_BODY)),
}


def main(
    streams: Annotated[str, typer.Option(help="numbers of streams, with commas between")] = "1,8,64",
    steps: Annotated[int, typer.Option(help="measured steps for each number")] = 300,
    profile: Annotated[bool, typer.Option(help="show where the time goes")] = False,
    out: Annotated[Path | None, typer.Option(help="directory for driver.json")] = None,
) -> None:
    """Run the benchmark, print a line for each number of streams, write JSON."""
    machine = Machine.here()
    rows = [_measure(int(number), steps, profile) for number in streams.split(",")]
    if out:
        write_json(out / "driver.json", machine, {"steps": steps, "rows": rows})


def _measure(num_streams: int, steps: int, profile: bool) -> dict[str, float]:
    with Worker(num_streams) as worker:
        for _ in range(20):
            worker.step()
        profiler = cProfile.Profile()
        if profile:
            profiler.enable()
        costs_ms = [worker.step() * 1e3 for _ in range(steps)]
        if profile:
            profiler.disable()
            pstats.Stats(profiler).sort_stats("tottime").print_stats(25)
    row = {"streams": num_streams, "p50_ms": statistics.median(costs_ms), "p90_ms": sorted(costs_ms)[int(steps * 0.9)]}
    stream_us = row["p50_ms"] * 1e3 / num_streams
    print(f"{num_streams:4d} streams: {row['p50_ms']:.2f} ms a step (p90 {row['p90_ms']:.2f}), {stream_us:.1f} µs a stream and step")
    return row


class Worker:
    """A TorchServe worker in the middle of ``num_streams`` streamed answers; ``step`` does all that one call of the frontend takes."""

    def __init__(self, num_streams: int) -> None:
        from ts.service import Service

        context = make_context(CausalLMHandler, Path("/nowhere"))
        self._ids = [f"{number:08d}-aaaa-bbbb-cccc-0123456789ab" for number in range(num_streams)]
        self._frontend, connection = socket.socketpair()
        self._connection = connection
        self._service = Service.__new__(Service)
        self._service._context, self._service.cl_socket = context, connection
        self._service._entry_point = ReadyHandler(context).handle
        self._exchange([(name, _HEADERS, _BODY) for name in self._ids])

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._frontend.close()
        self._connection.close()

    def step(self) -> float:
        """Return the processor time that one call with all streams took, in seconds."""
        return self._exchange([(name, _HEADERS, b"") for name in self._ids])

    def _exchange(self, requests: Sequence[tuple[str, Any, bytes]]) -> float:
        from ts.protocol.otf_message_handler import retrieve_msg

        self._frontend.sendall(predict_message(requests))
        started_s = time.thread_time()
        _, message = retrieve_msg(self._connection)
        answer = self._service.predict(message)
        self._connection.sendall(answer)
        took_s = time.thread_time() - started_s
        while len(self._frontend.recv(len(answer), socket.MSG_PEEK)) < len(answer):
            pass
        self._frontend.recv(len(answer))
        return took_s


class ReadyHandler(CausalLMHandler):
    """The default handler with a tokenizer, and an engine that has something for everyone."""

    def __init__(self, context: Any) -> None:
        self.config, self.model_name, self.model_version = HandlerConfig(), "llm", "1.0"
        self.checkpoint: Any = SimpleNamespace(sampling_defaults=SamplingParams())
        self.tokenizer = TextTokenizer(make_tokenizer())
        self.engine = TalkativeEngine(self.tokenizer)
        self._metrics = context.metrics
        self._driver = ContinuousDriver(self, self.engine, self.tokenizer.output, Cadence(flush_s=0.0, poll_s=0.0))
        adapt_worker(context)
        serve_directly(self._driver.step)


class TalkativeEngine(FakeEngine):
    """Has one more token for every sequence at every poll."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        super().__init__(max_model_len=10**6)
        self._tokens: Iterator[int] = itertools.cycle(tokenizer._encode(_TEXT, add_special_tokens=False))

    def poll(self, timeout_s: float) -> list[Event]:
        token_ids = (next(self._tokens),)
        return [Event(sequence_id, token_ids) for sequence_id in self.added]


if __name__ == "__main__":
    typer.run(main)
