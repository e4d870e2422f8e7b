"""Workers that come and go, on a server of their own: a second one, one that is killed, and the end of all."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import astuple
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from tests.contract.clients import PATIENCE_S, Answer, ModelClient, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def server(build: Callable[..., Path]) -> Iterator[TorchServe]:
    with TorchServe.start([ServedModel.from_archive(build("mortal"))]) as server:
        yield server


@pytest.fixture(scope="module")
def mortal(server: TorchServe) -> ModelClient:
    return ModelClient(server, "mortal")


def scale(server: TorchServe, num_workers: int) -> None:
    url = f"{server.management_url}/models/mortal"
    params = {"min_worker": num_workers, "max_worker": num_workers}
    assert httpx.put(url, params=params, timeout=PATIENCE_S).is_success


def test_a_second_worker_is_refused_while_the_first_goes_on(server: TorchServe, mortal: ModelClient) -> None:
    alone = mortal.complete("quick fox", max_tokens=20)
    log = server.logs / "torchserve.log"
    waits_s = []

    scale(server, 2)
    while "already has a worker" not in log.read_text():
        start_s = time.monotonic()
        assert mortal.complete("quick fox", max_tokens=20) == alone
        waits_s.append(time.monotonic() - start_s)
    scale(server, 1)

    assert "keep minWorkers and maxWorkers at 1" in log.read_text()
    assert len(waits_s) > 3 and max(waits_s) < 10


def test_a_killed_workers_clients_are_told_at_once_and_the_next_one_serves(server: TorchServe, mortal: ModelClient) -> None:
    wait_until(lambda: len(server.worker_pids()) == 1)
    (worker,) = server.worker_pids()
    alone = mortal.complete("quick fox", max_tokens=20)

    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(mortal.complete, "quick fox", max_tokens=3500, ignore_eos=True, stream=stream) for stream in (True, False)]
        with mortal.openai.completions.create(model="mortal", prompt="quick fox", max_tokens=3500, stream=True, extra_body={"ignore_eos": True}) as events:
            next(iter(events))
            os.kill(worker, signal.SIGKILL)
            killed_s = time.monotonic()
            failures = [failure_of(client) for client in clients]
            with pytest.raises((openai.APIError, httpx.TransportError)):
                list(events)

    assert time.monotonic() - killed_s < 10
    assert all(failures)
    wait_until(lambda: answers(mortal, alone))
    assert server.worker_pids() != [worker]


def test_stopping_leaves_nothing_behind(server: TorchServe) -> None:
    frontend = psutil.Process(server.frontend_pid)
    processes = [frontend, *frontend.parents()[:1], *frontend.children(recursive=True)]
    assert {*server.worker_pids()} < {process.pid for process in processes}
    directory = server.logs.parent

    server.stop()

    assert not [process for process in processes if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert not directory.exists()
    for port in astuple(server.ports):
        with socket.create_server(("127.0.0.1", port)):
            pass


def failure_of(client: Future[Answer]) -> BaseException | None:
    return client.exception(PATIENCE_S)


def answers(client: ModelClient, expected: Answer) -> bool:
    """Whether the model answers again, and right."""
    try:
        return client.complete("quick fox", max_tokens=20) == expected
    except openai.InternalServerError:  # TorchServe's 500 and 503 while no worker is ready
        return False
