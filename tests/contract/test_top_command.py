"""``marquee top`` beside a real server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from archiver.deploy.launch import TorchServe
from tests.contract.clients import PATIENCE_S, ModelClient, wait_until
from tests.contract.terminal import CTRL_C, Terminal

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

ROOT = Path(__file__).resolve().parents[2]


def one_frame(url: str, interval_s: float = 0.2) -> dict[str, dict[str, Any]]:
    """Return the rows by the models' names."""
    command = [sys.executable, "-m", "archiver", "top", url, "--once", "--json", "--interval", str(interval_s)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout
    return {row["name"]: row for row in json.loads(printed)["models"]}


def test_every_model_has_a_row_with_its_workers(server: TorchServe, wide: ModelClient) -> None:
    wide.complete("quick fox", max_tokens=8)
    wait_until(lambda: one_frame(server.inference_url)["wide"]["running"] == 0)  # metrics are a second old
    rows = one_frame(server.inference_url)
    assert {name: row["pids"] for name, row in rows.items()} == {model.name: server.worker_pids(model.name) for model in server.models}
    assert all((row["version"], row["num_ready"], row["num_workers"]) == ("1.0", 1, 1) for row in rows.values())
    assert (rows["wide"]["running"], rows["wide"]["max_running"], rows["wide"]["failed_per_s"]) == (0, 64, 0)
    assert rows["wide"]["ttft_p50_s"] > 0
    assert rows["narrow"]["max_running"] == 2
    assert rows["batched"]["kv_share"] is None


@contextmanager
def one_stream_at_a_time(client: ModelClient) -> Iterator[None]:
    """Generate without a pause until the end of the block."""
    is_over = threading.Event()

    def generate() -> None:
        while not is_over.is_set():
            client.complete("quick fox", max_tokens=500, ignore_eos=True, stream=True)

    with ThreadPoolExecutor(1) as pool:
        generating = pool.submit(generate)
        try:
            yield
        finally:
            is_over.set()
            generating.result(PATIENCE_S)


def test_a_stream_is_seen_while_it_lasts(server: TorchServe, wide: ModelClient) -> None:
    def row() -> dict[str, Any]:
        return one_frame(server.metrics_url)["wide"]

    with one_stream_at_a_time(wide):
        wait_until(lambda: (now := row())["running"] == 1 and now["kv_share"] > 0 and now["tokens_per_s"] > 0)
        wait_until(lambda: row()["requests_per_s"] > 0)
    wait_until(lambda: (now := row())["running"] == 0 and now["tokens_per_s"] == 0)


@pytest.mark.parametrize("key", ["q", CTRL_C])
def test_the_view_lasts_until_a_key_and_leaves_the_terminal_as_it_was(server: TorchServe, key: str) -> None:
    with Terminal("top", server.metrics_url, "--interval", "0.2") as terminal:
        for _ in range(2):  # frames
            terminal.expect("streams")
            terminal.expect("wide")
        terminal.type(key)
        assert terminal.exit_code() == 0
    assert terminal.output.index("\x1b[?1049h") < terminal.output.index("wide") < terminal.output.index("\x1b[?1049l")
    assert "Traceback" not in terminal.output
