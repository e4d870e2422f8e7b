"""Processes that sleep take no time, and all of a tree end."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.bench.load import Completions
from tests.bench.peers.peer import Launch, free_port
from tests.bench.processes import DidNotStart, ProcessTree, running

_SPIN = "while True: pass"
_PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', '{_SPIN}'])"


@pytest.fixture
def tree() -> Iterator[ProcessTree]:
    process = subprocess.Popen([sys.executable, "-c", _PARENT])
    tree = ProcessTree(process.pid)
    while not psutil.Process(process.pid).children():
        time.sleep(0.01)
    yield tree
    tree.stop()
    process.wait()


def test_a_sleeping_tree_takes_no_time_and_wakes_up(tree: ProcessTree) -> None:
    [child] = psutil.Process(tree.pid).children()
    tree.sleep()
    _wait_for(lambda: child.status() == psutil.STATUS_STOPPED)
    before_s = child.cpu_times().user
    time.sleep(0.1)
    assert child.cpu_times().user == before_s
    tree.wake()
    _wait_for(lambda: child.cpu_times().user > before_s)


def test_the_memory_of_a_tree_is_that_of_all_its_processes(tree: ProcessTree) -> None:
    root = psutil.Process(tree.pid)
    assert tree.rss_bytes() > root.memory_info().rss > 0


def test_a_sleeping_tree_can_be_stopped(tree: ProcessTree) -> None:
    [child] = psutil.Process(tree.pid).children()
    tree.sleep()
    tree.stop()
    assert not child.is_running()
    assert tree.rss_bytes() == 0


def test_a_server_runs_from_its_being_ready_to_the_end_of_the_block(tmp_path: Path) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}/"
    launch = Launch([sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"], url, Completions(url, "llm"))
    with running(launch, tmp_path / "log") as tree:
        process = psutil.Process(tree.pid)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_server_that_ends_at_once_says_why(tmp_path: Path) -> None:
    launch = Launch([sys.executable, "-c", "raise SystemExit('no such model')"], "http://127.0.0.1:1/", Completions("", ""))
    with pytest.raises(DidNotStart, match="no such model"), running(launch, tmp_path / "log"):
        pass


def _wait_for(condition: object) -> None:
    deadline = time.monotonic() + 10
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)
