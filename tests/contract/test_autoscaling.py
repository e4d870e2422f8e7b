"""``marquee autoscale`` beside a real server: more engines while requests wait, one again when they do not, and none of them fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from tests.contract.clients import ModelClient, orders_to, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(build: Callable[..., Path]) -> Iterator[TorchServe]:
    # Two sequences at a time, so that the third waits.
    engine = {"max_running": 2, "max_waiting": 64, "num_threads": 1, "kv_memory_gib": 0.01}
    archive = build("elastic", format="dir", settings={"engine": engine})
    with TorchServe.start([ServedModel.from_archive(archive)]) as server:
        yield server


def autoscale(server: TorchServe, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "archiver", "autoscale", "elastic", "--url", server.management_url, "--json", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Return what it logged; fail unless it ended as it should."""
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    return [json.loads(line) for line in output.splitlines()]


def test_engines_follow_the_load(server: TorchServe) -> None:
    client = ModelClient(server, "elastic")
    order = orders_to(server, "elastic")
    is_over = threading.Event()

    def num_engines() -> int:
        states = [replica["state"] for replica in order("describe")["replicas"]]
        return len(states) if set(states) == {"ready"} else 0

    def ask_until_it_is_over(_: int) -> int:
        lengths = []
        while not is_over.is_set():
            lengths.append(client.complete("quick fox", max_tokens=100, ignore_eos=True).num_tokens)
        assert set(lengths) == {100}
        return len(lengths)

    cooldowns = ("--interval", "2", "--up-cooldown", "1", "--down-cooldown", "2")
    process = autoscale(server, "--max", "2", "--target-queue-ms", "20", *cooldowns)
    try:
        with ThreadPoolExecutor(6) as clients:
            asked = clients.map(ask_until_it_is_over, range(6))
            try:
                wait_until(lambda: num_engines() == 2)
            finally:
                is_over.set()
            assert min(asked) > 0
        wait_until(lambda: num_engines() == 1)
    finally:
        lines = stop(process)

    up, down = [line for line in lines if line["action"] == "scale"]
    assert (up["replicas"], up["order"], up["reason"]) == (1, 2, "over target")
    assert up["measured"] > 20
    assert up["waiting"] > 0
    assert up["affordable"] >= 2
    assert (down["replicas"], down["order"], down["reason"]) == (2, 1, "under target")
