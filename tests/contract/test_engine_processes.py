"""Engines that die, hang and change in number behind a worker that goes on; and the memory that was planned for them, and is taken."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from handlers.memory_ledger import SCHEMA, Interval, LedgerLine, MemoryLedger
from tests.contract.clients import Answer, ModelClient, at_once, counter, orders_to, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

LONG = {"temperature": 0, "max_tokens": 6000, "ignore_eos": True, "stream": True}
WEIGHTS, CONTEXT = Interval(1_000, 2_000, 10_000_000), Interval(1_000_000, 400_000_000, 4_000_000_000)
LEDGER = MemoryLedger("cpu", "a CPU", 8 << 30, (LedgerLine("weights", "", WEIGHTS), LedgerLine("context", "", CONTEXT)))
MAX_RUNNING = 4


@pytest.fixture(scope="module")
def server(build: Callable[..., Path]) -> Iterator[TorchServe]:
    plan = json.dumps({"schema": SCHEMA, "ledger": asdict(LEDGER)}).encode()
    engine = {"step_timeout_s": 8.0, "num_threads": 1, "memory_policy": "refuse", "max_running": MAX_RUNNING}
    archive = build("replaceable", format="dir", plan=plan, settings={"engine": engine})
    with TorchServe.start([ServedModel.from_archive(archive)]) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: TorchServe) -> ModelClient:
    return ModelClient(server, "replaceable")


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def alone(client: ModelClient) -> Answer:
    return client.complete("quick fox", max_tokens=20)


@pytest.fixture(scope="class")
def two_engines(client: ModelClient, order: Callable[..., Any], alone: Answer) -> Iterator[None]:
    """One more, and one less again, while a client is served."""

    def states() -> list[str]:
        assert client.complete("quick fox", max_tokens=20) == alone
        return [replica["state"] for replica in order("describe")["replicas"]]

    order("scale", replicas=2)
    wait_until(lambda: states() == ["ready", "ready"])
    yield
    order("scale", replicas=1)
    wait_until(lambda: states() == ["ready"])


@pytest.mark.usefixtures("two_engines")
class TestTwoEngines:
    def test_all_clients_get_what_each_gets_alone(self, client: ModelClient, order: Callable[..., Any], alone: Answer) -> None:
        assert at_once(lambda _: client.complete("quick fox", max_tokens=20), range(8)) == [alone] * 8
        assert order("stats")["generated_tokens"] > 0

    def test_metrics_show_predicted_and_measured_memory(self, server: TorchServe, client: ModelClient, order: Callable[..., Any]) -> None:
        wait_until(lambda: order("stats")["engines"] == 2)
        stats, told = order("stats"), order("describe")

        def shows(metric: str, value: float, **labels: str) -> Callable[[], bool]:
            return lambda: counter(server, f"marquee_{metric}", "replaceable", **labels) == value

        # A client's end makes the worker report, whoever has reported to it by then.
        wait_until(lambda: client.complete("x", max_tokens=1) and shows("admitted_sequences", 2 * MAX_RUNNING)())
        for part, interval in (("weights", WEIGHTS), ("context", CONTEXT)):
            for bound, value in asdict(interval).items():
                wait_until(shows("predicted_memory_bytes", 2 * value, part=part, bound=bound))
        for metric, name in (("weight", "weight"), ("kv_cache", "kv"), ("activation", "activation"), ("context", "context")):
            assert stats[f"{name}_bytes"] > 0
            wait_until(shows(f"{metric}_bytes", stats[f"{name}_bytes"]))
        assert shows("out_of_memory_total", 0)()

        assert told["memory"]["predicted"] == {line.part: asdict(line.bytes) for line in LEDGER.lines}
        assert told["memory"]["measured"]["weights"] == stats["weight_bytes"]
        assert told["memory"]["engines"] == 2


def test_engines_end_with_their_worker(server: TorchServe, client: ModelClient, order: Callable[..., Any]) -> None:
    wait_until(lambda: len(order("describe")["replicas"]) == 1)  # on a starved machine one may just be replacing another
    (engine,) = order("describe")["replicas"]
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not is_running(engine["pid"]))


def is_running(pid: int) -> bool:
    """Whether a process exists and is not just waiting for its new parent to notice its end."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
