"""How many replicas memory suffices for."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.autoscale import memory_bound
from archiver.deploy.autoscale.memory_bound import ReplicaMemory, affordable_on_gpus, affordable_on_host, affordable_workers

GIB = 1 << 30
MEASURED = {"weights": 8 * GIB, "kv_cache": 4 * GIB, "activations": 2 * GIB, "context": 1 * GIB, "graphs": 1 * GIB}

gibs = st.floats(0.1, 200.0)
counts = st.integers(1, 8)


def test_measured_memory_is_of_all_engines_together():
    memory = {"engines": 2, "measured": MEASURED, "predicted": None}
    assert ReplicaMemory.of_engine(memory) == ReplicaMemory(fixed=6 * GIB, kv=2 * GIB)


def test_a_plan_is_of_one_engine_and_knows_better_what_it_fixes():
    parts = {"weights": 3.0, "kv_cache": 9.0, "activations": 2.0, "reserve": 1.0}
    predicted = {part: {"low": 0.0, "expected": gib * GIB, "high": 99.0 * GIB} for part, gib in parts.items()}
    memory = {"engines": 2, "measured": MEASURED, "predicted": predicted}
    assert ReplicaMemory.of_engine(memory) == ReplicaMemory(fixed=6 * GIB, kv=2 * GIB)


@pytest.mark.parametrize("memory", [{"engines": 0, "measured": MEASURED}, {"engines": 1, "measured": dict.fromkeys(MEASURED, 0)}])
def test_before_an_engine_has_loaded_nothing_is_known(memory: dict[str, object]):
    assert ReplicaMemory.of_engine(memory | {"predicted": None}) is None


def test_on_a_host_each_replica_takes_its_own_cache_too():
    replica = ReplicaMemory(fixed=3 * GIB, kv=1 * GIB)
    assert affordable_on_host(replica, 2, free_bytes=25 * GIB, total_bytes=100 * GIB) == 2 + 5, "a reserve of 5 GiB"
    assert affordable_on_host(replica, 2, free_bytes=90 * GIB, total_bytes=20 * GIB) == 2 + 2, "a container's limit"
    assert affordable_on_host(replica, 2, free_bytes=0, total_bytes=100 * GIB) == 2, "and never fewer than there are"


def test_on_gpus_replicas_share_what_one_was_given():
    replica = ReplicaMemory(fixed=16 * GIB, kv=48 * GIB)
    assert affordable_on_gpus(replica, 1, num_gpus=1) == 3, "48 of 64 GiB, as a quarter stays for keys and values"
    assert affordable_on_gpus(replica, 1, num_gpus=4) == 12
    halved = ReplicaMemory(fixed=16 * GIB, kv=16 * GIB)
    assert affordable_on_gpus(halved, 2, num_gpus=1) == 3, "two that share it see the same"


@given(gibs, gibs, counts, counts, st.integers(0, 200))
def test_what_runs_is_affordable(fixed: float, kv: float, replicas: int, num_gpus: int, free_gib: int):
    replica = ReplicaMemory(fixed * GIB, kv * GIB)
    assert affordable_on_gpus(replica, replicas, num_gpus=num_gpus) >= replicas
    assert affordable_on_host(replica, replicas, free_bytes=free_gib * GIB, total_bytes=256 * GIB) >= replicas


def test_workers_are_as_large_as_their_process():
    affordable = affordable_workers([os.getpid()])
    assert affordable is not None
    assert affordable >= 1
    assert affordable_workers([2**22 + 1]) is None, "a process that is not there"


def test_engines_of_this_machine(monkeypatch: pytest.MonkeyPatch):
    memory = {"engines": 1, "measured": MEASURED | {"kv_cache": 48 * GIB, "weights": 12 * GIB}, "predicted": None}
    for num_gpus, affordable in ((1, 3), (2, 6), (None, None)):
        monkeypatch.setattr(memory_bound, "_num_gpus", lambda num_gpus=num_gpus: num_gpus)
        assert memory_bound.affordable_engines(memory, 1) == affordable
    monkeypatch.setattr(memory_bound, "_num_gpus", lambda: 0)
    small = {"engines": 1, "measured": dict.fromkeys(MEASURED, 1024), "predicted": None}
    assert (memory_bound.affordable_engines(small, 1) or 0) > 1000
