"""Readings of a real server, recorded under load. Two models were added by hand: one in trouble, and one that is not ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver.deploy.management import ModelStatus, WorkerStatus
from archiver.deploy.scrape import Samples, parse_samples
from archiver.deploy.top.history import History

RECORDED = Path(__file__).with_name("recorded")


@pytest.fixture
def reading() -> Callable[[str, float], Samples]:
    """Return a function from a recording, ``before`` or ``after``, and a time to a reading."""
    return lambda name, scraped_s: replace(parse_samples((RECORDED / f"{name}.txt").read_text()), scraped_s=scraped_s)


@pytest.fixture
def recorded(reading: Callable[[str, float], Samples]) -> History:
    """Both readings, which were five seconds apart."""
    return History().add(reading("before", 100.0)).add(reading("after", 105.0))


@pytest.fixture
def status() -> Callable[..., ModelStatus]:
    """Return a function that makes what the management API says about a model, for which two requests wait in TorchServe's queue."""

    def make(name: str, version: str = "1.0", ready: tuple[bool, ...] = (True,), memory_bytes: int = 0) -> ModelStatus:
        started = datetime.now(UTC)
        workers = tuple(WorkerStatus(str(number), 10 + number, is_ready, started, memory_bytes) for number, is_ready in enumerate(ready))
        return ModelStatus(name, version, True, True, name, 1, 1, 8, 1, workers, pending_requests=2)

    return make
