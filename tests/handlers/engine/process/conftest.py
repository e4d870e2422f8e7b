"""Engine processes that a test starts, and that are gone after it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from process_fakes import ScriptedHandler, children

from handlers.engine.process.client import ProcessClient, start_process_client

Start = Callable[..., ProcessClient]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts scripted engines: ``start(**engine settings)``."""
    clients: list[ProcessClient] = []

    def start(**engine: Any) -> ProcessClient:
        clients.append(start_process_client(ScriptedHandler.configured(tmp_path, **engine)))
        return clients[-1]

    before = set(children(os.getpid()))
    yield start
    for client in clients:
        client.close()
    assert set(children(os.getpid())) <= before, "a process was left behind"
