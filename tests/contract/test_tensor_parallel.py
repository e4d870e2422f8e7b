"""Two ranks behind one worker: the tokens of one, the end of one of them while it streams, and nothing left when the server stops."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from tests.contract.clients import ModelClient, at_once, orders_to, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

LONG = {"prompt": "quick fox", "temperature": 0, "max_tokens": 6000, "ignore_eos": True, "stream": True}
PROMPTS = ("quick fox", "a", "the lazy dog jumps over the quick brown fox " * 8)


@pytest.fixture(scope="module")
def server(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchServe]:
    """``divided`` has two ranks by its own configuration, ``torchrun`` by TorchServe's."""
    keys = tmp_path_factory.mktemp("config") / "model-config.yaml"
    keys.write_text("parallelType: tp\ntorchrun: {nproc-per-node: 2}\n")
    archives = [
        build("divided", format="dir", settings={"engine": {"tensor_parallel": 2}}),
        build("torchrun", format="dir", config=keys),
    ]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))  # where torchrun is
        with TorchServe.start([ServedModel.from_archive(archive) for archive in archives]) as server:
            yield server
            left = psutil.Process(server.frontend_pid).children(recursive=True)
    assert len(left) == 3 + 5  # a worker and two ranks; torchrun, a worker and two ranks, a worker that does nothing
    wait_until(lambda: not any(map(is_running, left)))


@pytest.fixture(scope="module")
def client(server: TorchServe) -> ModelClient:
    return ModelClient(server, "divided")


@pytest.fixture(scope="module")
def order(server: TorchServe) -> Callable[..., Any]:
    return orders_to(server, "divided")


@pytest.mark.parametrize("model", ["divided", "torchrun"])
@pytest.mark.parametrize("prompt", PROMPTS, ids=len)
def test_two_ranks_say_what_one_says(
    server: TorchServe, generate: Callable[..., list[int]], tokenizer: Any, model: str, prompt: str
) -> None:
    expected = generate(prompt, 40)
    answer = ModelClient(server, model).complete(prompt, stream=True, max_tokens=40, ignore_eos=True)
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


def test_workers_of_torchrun_serve_as_one(server: TorchServe) -> None:
    client, order = ModelClient(server, "torchrun"), orders_to(server, "torchrun")
    prompts = [f"fox {index}" for index in range(16)]
    alone = [client.complete(prompt, max_tokens=10) for prompt in prompts]
    assert at_once(lambda prompt: client.complete(prompt, max_tokens=10, stream=True), prompts) == alone
    assert [replica["ranks"] for replica in order("describe")["replicas"]] == [2]


def is_running(process: psutil.Process) -> bool:
    """Whether it exists and is not just waiting for its new parent to notice its end."""
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
