"""``marquee autoscale`` beside a real server: more engines while requests wait, one again when they do not, and none of them fails."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from tests.contract.clients import PATIENCE_S, ModelClient, at_once, orders_to, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def server(build: Callable[..., Path]) -> Iterator[TorchServe]:
    # Of six clients two are served at a time, and for so long that the others wait, however slow the clients are.
    engine = {"max_running": 2, "max_waiting": 64, "num_threads": 1, "kv_memory_gib": 0.01}
    archive = build("elastic", format="dir", settings={"engine": engine})
    with TorchServe.start([ServedModel.from_archive(archive)]) as server:
        yield server


@pytest.fixture
def decisions(server: TorchServe, tmp_path: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Run ``marquee autoscale``, and return a function that returns what it has decided to change so far."""
    log = tmp_path / "decisions.jsonl"
    options = ("--max", "2", "--target-queue-ms", "20", "--interval", "2", "--up-cooldown", "1", "--down-cooldown", "2")
    command = [sys.executable, "-m", "archiver", "autoscale", "elastic", "--url", server.management_url, "--json", *options]
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE, text=True)
    yield lambda: [line for line in map(json.loads, log.read_text().splitlines()) if line["action"] == "scale"]
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60) == (None, "")
    assert process.returncode == 0


def test_engines_follow_the_load(server: TorchServe, decisions: Callable[[], list[dict[str, Any]]]) -> None:
    client = ModelClient(server, "elastic")
    order = orders_to(server, "elastic")

    def ask(_: int) -> int:
        num_asked = 0
        while not decisions():
            assert client.complete("quick fox", max_tokens=500, ignore_eos=True).num_tokens == 500
            num_asked += 1
        return num_asked

    assert sum(at_once(ask, range(6))) > 0
    wait_until(lambda: len(order("describe")["replicas"]) > 1)
    wait_until(lambda: len(decisions()) > 1, timeout_s=PATIENCE_S * 2)  # two engines have to load, and two to replace them
    wait_until(lambda: len(order("describe")["replicas"]) == 1)

    up, down = decisions()
    assert (up["replicas"], up["order"], up["reason"]) == (1, 2, "over target")
    assert up["measured"] > 20
    assert up["waiting"] > 0
    assert up["affordable"] >= 2
    assert (down["replicas"], down["order"], down["reason"]) == (2, 1, "under target")
