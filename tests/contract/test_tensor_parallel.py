"""Two ranks behind one worker: the tokens of one, the end of one of them while it streams, and nothing left when the server stops."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from tests.contract.clients import ModelClient, orders_to, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

LONG = {"prompt": "quick fox", "temperature": 0, "max_tokens": 6000, "ignore_eos": True, "stream": True}
PROMPTS = ("quick fox", "a", "the lazy dog jumps over the quick brown fox " * 8)


@pytest.fixture(scope="module")
def server(build: Callable[..., Path]) -> Iterator[TorchServe]:
    archive = build("divided", format="dir", settings={"engine": {"tensor_parallel": 2}})
    with TorchServe.start([ServedModel.from_archive(archive)]) as server:
        yield server
        left = [process for pid in server.worker_pids() for process in psutil.Process(pid).children(recursive=True)]
    assert len(left) == 2
    wait_until(lambda: not any(map(is_running, left)))


@pytest.fixture(scope="module")
def client(server: TorchServe) -> ModelClient:
    return ModelClient(server, "divided")


@pytest.fixture(scope="module")
def order(server: TorchServe) -> Callable[..., Any]:
    return orders_to(server, "divided")


@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_two_ranks_say_what_one_says(client: ModelClient, generate: Callable[..., list[int]], tokenizer: Any, prompt: str) -> None:
    expected = generate(prompt, 40)
    answer = client.complete(prompt, stream=True, max_tokens=40, ignore_eos=True)
    assert answer.text == tokenizer.decode(expected, skip_special_tokens=True)


def test_a_rank_that_is_killed_is_an_error_event_and_a_restart(client: ModelClient, order: Callable[..., Any]) -> None:
    before = client.complete("quick fox", max_tokens=20)
    (engine,) = order("describe")["replicas"]
    assert engine["ranks"] == 2
    (rank,) = psutil.Process(engine["pid"]).children()

    with httpx.stream("POST", f"{client.base_url}/completions", json=LONG, timeout=60) as response:
        lines = (line for line in response.iter_lines() if line.startswith("data: "))
        next(lines)
        os.kill(rank.pid, signal.SIGKILL)
        rest = list(lines)

    assert "the engine process failed" in "".join(rest[-2:])
    assert client.complete("quick fox", max_tokens=20) == before, "it waits for the restart"
    (successor,) = order("describe")["replicas"]
    assert successor["pid"] != engine["pid"]
    assert not is_running(rank)


def is_running(process: psutil.Process) -> bool:
    """Whether it exists and is not just waiting for its new parent to notice its end."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
