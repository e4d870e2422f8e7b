"""What an operator may ask of a running engine."""

from __future__ import annotations

import json
from typing import Any

import pytest

from handlers.engine.admission import EngineLimits
from handlers.engine.client import EngineStats
from handlers.engine.control import describe_engine, engine_commands
from handlers.engine.process.client import ProcessClient, ReplicaState
from handlers.errors import ConfigError

LIMITS = EngineLimits(100, 1000, 4, 8)


class InProcess:
    """As much of an engine in the worker as is asked for here."""

    limits = LIMITS
    max_model_len = 100

    def stats(self) -> EngineStats:
        return EngineStats(running=3)

    def drain(self, timeout_s: float) -> bool:
        return timeout_s > 1


class InProcesses(InProcess, ProcessClient):
    """The same of one with replicas."""

    limits = LIMITS  # type: ignore[assignment]
    max_model_len = 100  # type: ignore[assignment]

    def __init__(self) -> None:
        self.wanted = 1

    def scale(self, replicas: int) -> None:
        self.wanted = replicas

    def replicas(self) -> list[ReplicaState]:
        return [ReplicaState(pid=7, state="ready", sequences=2)] * self.wanted


def test_statistics_and_descriptions_are_json() -> None:
    engine: Any = InProcesses()
    assert json.loads(json.dumps(engine_commands(engine)["stats"]()))["running"] == 3
    described = json.loads(json.dumps(describe_engine(engine)))
    assert described["replicas"] == [{"pid": 7, "state": "ready", "sequences": 2, "ranks": 1}]
    assert described["limits"]["max_waiting"] == 8


def test_scaling_tells_what_there_is_now() -> None:
    engine: Any = InProcesses()
    assert len(engine_commands(engine)["scale"](replicas=2)["replicas"]) == 2
    assert engine.wanted == 2


@pytest.mark.parametrize("replicas", [0, 65, "2", 1.0, True, None])
def test_a_number_of_replicas_that_cannot_be_is_refused(replicas: Any) -> None:
    engine: Any = InProcesses()
    with pytest.raises(ConfigError, match="from 1 to 64, got"):
        engine_commands(engine)["scale"](replicas=replicas)


def test_an_engine_in_the_worker_cannot_be_scaled() -> None:
    engine: Any = InProcess()
    assert describe_engine(engine)["replicas"] == []
    with pytest.raises(ConfigError, match=r"handler\.engine\.process: true"):
        engine_commands(engine)["scale"](replicas=2)
