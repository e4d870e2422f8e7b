"""All workers of a server finish what they are at, each in its own time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archiver.deploy.draining import drain_workers
from handlers.control_socket import ControlSocket


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function that makes a worker whose drain returns what ``drain`` does."""
    sockets: list[ControlSocket] = []

    def make(drain: Callable[[float], bool]) -> Path:
        path = tmp_path / f"{len(sockets)}.sock"
        sockets.append(ControlSocket(path, {"drain": lambda timeout_s: drain(timeout_s)}))
        return path

    yield make
    for socket in sockets:
        socket.close()


def test_every_worker_is_told_how_long_it_has(worker):
    told = []
    assert drain_workers([worker(lambda timeout_s: not told.append(timeout_s)) for _ in range(3)], 7.0)
    assert told == [7.0] * 3
    assert drain_workers([], 7.0)


def test_one_that_gives_up_ends_no_others_time(worker):
    gave_up, has_finished = threading.Event(), threading.Event()

    def finish(timeout_s: float) -> bool:
        assert gave_up.wait(10)
        has_finished.set()
        return True

    def give_up(timeout_s: float) -> bool:
        gave_up.set()
        return False

    assert not drain_workers([worker(give_up), worker(finish)], 0.0)
    assert has_finished.is_set()


def test_one_that_is_gone_has_nothing_to_finish(worker, tmp_path):
    assert drain_workers([worker(lambda timeout_s: True), tmp_path / "gone.sock"], 0.0)
