"""Workers that come and go, on a server of their own: one that is killed, a second one, and the end of all."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import httpx
import openai
import psutil
import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from tests.contract.clients import PATIENCE_S, Answer, ModelClient, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def server(build: Callable[..., Path]) -> Iterator[TorchServe]:
    with TorchServe.start([ServedModel.from_archive(build("mortal"))]) as server:
        yield server


@pytest.fixture(scope="module")
def mortal(server: TorchServe) -> ModelClient:
    return ModelClient(server, "mortal")


def test_a_killed_workers_clients_are_told_at_once_and_the_next_one_serves(server: TorchServe, mortal: ModelClient) -> None:
    (worker,) = server.worker_pids()
    before = mortal.complete("quick fox", max_tokens=20)

    with admitted_request(mortal, stream=True) as streamed, admitted_request(mortal, stream=False) as plain, ThreadPoolExecutor() as pool:
        held = pool.submit(mortal.post, {"prompt": "quick fox", "max_tokens": 7500, "ignore_eos": True})
        time.sleep(0.5)  # It is admitted, and its answer has not begun.
        os.kill(worker, signal.SIGKILL)
        killed_s = time.monotonic()
        for response in (streamed, plain):
            with pytest.raises((httpx.RemoteProtocolError, httpx.NetworkError)):  # the connection ends before the answer does
                response.read()
        assert held.result(PATIENCE_S).status_code in (500, 507)  # TorchServe takes a killed worker for one without memory

    assert time.monotonic() - killed_s < 10
    wait_until(lambda: answers(mortal, before))
    assert worker not in server.worker_pids()


def test_a_second_worker_is_refused_and_the_order_undone_while_the_first_goes_on(server: TorchServe, mortal: ModelClient) -> None:
    alone = mortal.complete("quick fox", max_tokens=20)
    workers = server.worker_pids()
    waits_s = []

    assert httpx.put(f"{server.management_url}/models/mortal", params={"min_worker": 2, "max_worker": 2}, timeout=PATIENCE_S).is_success
    assert len(server.worker_pids()) == 2

    def is_undone() -> bool:
        start_s = time.monotonic()
        assert mortal.complete("quick fox", max_tokens=20) == alone
        waits_s.append(time.monotonic() - start_s)
        return server.worker_pids() == workers

    wait_until(is_undone)
    log = (server.logs / "torchserve.log").read_text()
    assert "already has a worker" in log
    assert "marquee models scale mortal N" in log
    assert len(waits_s) > 3 and max(waits_s) < 10


def test_stopping_leaves_nothing_behind(server: TorchServe) -> None:
    directory = server.logs.parent
    assert len(processes_of(directory)) >= 3  # guard, frontend and worker; perhaps another attempt at a second worker

    server.stop()

    assert not processes_of(directory)
    assert not directory.exists()
    for port in astuple(server.ports):
        with socket.create_server(("127.0.0.1", port)):
            pass


@contextmanager
def admitted_request(client: ModelClient, *, stream: bool) -> Iterator[httpx.Response]:
    """Ask for a long answer, which has begun when the block does."""
    body = {"prompt": "quick fox", "max_tokens": 7500, "ignore_eos": True, "stream": stream}
    with httpx.stream("POST", f"{client.base_url}/completions", json=body, timeout=PATIENCE_S) as response:
        assert response.status_code == 200
        yield response


def processes_of(directory: Path) -> list[psutil.Process]:
    """Return the live processes of the server that runs in ``directory``: each has its path in its command line."""
    return [process for process in psutil.process_iter() if str(directory) in command_line(process)]


def command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it ended meanwhile
        return ""


def answers(client: ModelClient, expected: Answer) -> bool:
    """Whether the model answers again, and right."""
    try:
        return client.complete("quick fox", max_tokens=20) == expected
    except openai.InternalServerError:  # TorchServe's own, while no worker is ready
        return False
