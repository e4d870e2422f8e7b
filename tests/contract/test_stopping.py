"""A server that is told to stop: what runs may finish, what is new is refused, and nothing is left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.contract.clients import PATIENCE_S
from tests.contract.conftest import BATCHED_HANDLER
from tests.fakes import parse_events

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

DRAIN_S = 4
ENDLESS = 7500
"""Tokens that take far longer than the server waits."""


class Served:
    """``marquee serve`` in a process, with a continuous model and a synchronous one."""

    def __init__(self, *archives: Path) -> None:
        options = ["--port", "0", "--json", "--drain-timeout", str(DRAIN_S)]
        command = [sys.executable, "-m", "archiver", "serve", *map(str, archives), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.ready: dict[str, Any] = json.loads(self.process.stdout.readline())
        self._urls = {model["name"]: model["base_url"] for model in self.ready["models"]}

    def complete(self, model: str, num_tokens: int, *, stream: bool = False, begun: threading.Event | None = None) -> httpx.Response:
        body = {"prompt": "quick fox", "max_tokens": num_tokens, "ignore_eos": True, "temperature": 0, "stream": stream}
        with httpx.stream("POST", f"{self._urls[model]}/completions", json=body, timeout=PATIENCE_S) as response:
            if begun is not None:
                begun.set()
            response.read()
        return response


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    servers: list[Served] = []

    def start(*archives: Path) -> Served:
        servers.append(Served(*archives))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()


def test_what_runs_finishes_what_is_new_is_refused_and_nothing_is_left(serve: Callable[..., Served], build: Callable[..., Path]) -> None:
    served = serve(build("stopping", format="dir"), build("stopping-static", format="dir", handler=BATCHED_HANDLER))
    frontend = psutil.Process(served.ready["frontend_pid"])
    tree = [frontend, *frontend.children(recursive=True)]
    begun = threading.Event()
    with ThreadPoolExecutor() as pool:
        endless: Future[httpx.Response] = pool.submit(served.complete, "stopping", ENDLESS, stream=True, begun=begun)
        assert begun.wait(PATIENCE_S)
        short = [pool.submit(served.complete, "stopping", 200, stream=stream) for stream in (True, False)]
        static = pool.submit(served.complete, "stopping-static", 200)
        time.sleep(0.5)  # they are with the workers

        served.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        refused = served.complete("stopping", 5)

        assert [each.result().status_code for each in (*short, static)] == [200, 200, 200]
        assert [response.result().json()["usage"]["completion_tokens"] for response in (short[1], static)] == [200, 200]
        assert list(parse_events(short[0].result().content))[-1] == "[DONE]"
        *events, last = parse_events(endless.result().content)
        assert len(events) > 10
        assert "shutting down" in last["error"]["message"]
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    _, errors = served.process.communicate(timeout=60)
    assert served.process.returncode == 0
    assert errors == f"some requests took longer than {DRAIN_S} s and were ended\n"
    assert not any(each.is_running() for each in tree)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.ready['inference_url']}/ping")


def test_a_second_signal_hurries(serve: Callable[..., Served], build: Callable[..., Path]) -> None:
    served = serve(build("stopping", format="dir"))
    begun = threading.Event()
    with ThreadPoolExecutor() as pool:
        endless = pool.submit(served.complete, "stopping", ENDLESS, stream=True, begun=begun)
        assert begun.wait(PATIENCE_S)
        for _ in range(2):
            served.process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        with pytest.raises((httpx.RemoteProtocolError, httpx.NetworkError)):
            endless.result()
    assert served.process.wait(timeout=60) == 0
