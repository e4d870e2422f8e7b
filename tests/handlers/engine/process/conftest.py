"""Engine processes that a test starts, and that are gone after it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from process_fakes import EngineStarter


@pytest.fixture
def start(tmp_path: Path) -> Iterator[EngineStarter]:
    start = EngineStarter(tmp_path)
    yield start
    for client in start.clients:
        client.close()
    assert not start.processes(), "a process was left behind"
