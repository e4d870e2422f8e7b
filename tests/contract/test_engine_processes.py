"""Engines that die, hang and change in number behind a worker that goes on, on a server of their own."""

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
from tests.contract.clients import ModelClient, at_once, orders_to, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

LONG = {"temperature": 0, "max_tokens": 6000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def server(build: Callable[..., Path]) -> Iterator[TorchServe]:
    archive = build("replaceable", format="dir", settings={"engine": {"step_timeout_s": 8.0, "num_threads": 1}})
    with TorchServe.start([ServedModel.from_archive(archive)]) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: TorchServe) -> ModelClient:
    return ModelClient(server, "replaceable")


@pytest.fixture
def order(server: TorchServe) -> Callable[..., Any]:
    """Return a function that gives the worker an order."""
    return orders_to(server, "replaceable")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
def test_an_engine_that_is_lost_is_an_error_event_and_a_restart(
    server: TorchServe, client: ModelClient, order: Callable[..., Any], how: signal.Signals
) -> None:
    (worker,) = server.worker_pids()
    before = client.complete("quick fox", max_tokens=20)
    (engine,) = order("describe")["replicas"]

    with httpx.stream("POST", f"{client.base_url}/completions", json={"prompt": "quick fox", **LONG}, timeout=60) as response:
        lines = response.iter_lines()
        next(line for line in lines if line.startswith("data: "))
        os.kill(engine["pid"], how)
        rest = [line for line in lines if line.startswith("data: ")]

    assert response.status_code == 200
    assert "the engine process failed" in "".join(rest[-2:])
    assert client.complete("quick fox", max_tokens=20) == before, "it waits for the restart"
    assert server.worker_pids() == [worker]
    (successor,) = order("describe")["replicas"]
    assert successor["pid"] != engine["pid"]


def test_the_number_of_engines_changes_while_clients_are_served(server: TorchServe, client: ModelClient, order: Callable[..., Any]) -> None:
    alone = client.complete("quick fox", max_tokens=20)

    def states() -> list[str]:
        assert client.complete("quick fox", max_tokens=20) == alone
        return [replica["state"] for replica in order("describe")["replicas"]]

    order("scale", replicas=2)
    wait_until(lambda: states() == ["ready", "ready"])
    assert at_once(lambda _: client.complete("quick fox", max_tokens=20), range(8)) == [alone] * 8
    assert order("stats")["generated_tokens"] > 0
    order("scale", replicas=1)
    wait_until(lambda: states() == ["ready"])


def test_engines_end_with_their_worker(server: TorchServe, client: ModelClient, order: Callable[..., Any]) -> None:
    wait_until(lambda: len(order("describe")["replicas"]) == 1)  # on a starved machine one may just be replacing another
    (engine,) = order("describe")["replicas"]
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not is_running(engine["pid"]))


def is_running(pid: int) -> bool:
    """Whether a process exists and is not just waiting for its new parent to notice its end."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
