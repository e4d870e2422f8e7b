"""Replicas divide cores and GPUs among themselves; one alone is left alone."""

from __future__ import annotations

import os
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.config import EngineConfig, HandlerConfig
from handlers.engine.process import placement
from handlers.engine.process.placement import Placement, divide, share, visible_gpus
from handlers.engine.process.source import EngineSource


@given(st.integers(1, 40), st.integers(1, 40))
def test_shares_cover_everything_and_overlap_only_where_they_must(num_items: int, count: int) -> None:
    items = list(range(num_items))
    shares = [share(items, index, count) for index in range(count)]
    assert all(shares)
    if count <= num_items:
        assert [item for part in shares for item in part] == items
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_replica_takes_everything() -> None:
    assert divide(1) == [Placement()]
    assert Placement().environment() == {}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no core sets")
def test_without_gpus_the_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(placement, "usable_cores", lambda: [0, 1, 4, 5])
    monkeypatch.setattr(placement, "num_cores", lambda: 4)
    places = divide(2)
    assert [place.cores for place in places] == [(0, 1), (4, 5)]
    for asked, granted in (("", "2"), ("1", "1"), ("8", "2"), ("4,2", "2")):
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
        assert places[1].environment() == {"OMP_NUM_THREADS": granted}


def test_a_containers_quota_is_divided_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(placement, "usable_cores", lambda: list(range(8)))
    monkeypatch.setattr(placement, "num_cores", lambda: 3)
    assert [place.environment() for place in divide(2)] == [{"OMP_NUM_THREADS": "1"}] * 2
    assert [len(place.cores or ()) for place in divide(2)] == [4, 4]


def test_gpus_are_divided_as_the_operator_named_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-abc,5,7")
    assert visible_gpus() == ["2", "GPU-abc", "5", "7"]
    assert divide(2) == [Placement(gpus=("2", "GPU-abc")), Placement(gpus=("5", "7"))]
    assert divide(4)[1].environment() == {"CUDA_VISIBLE_DEVICES": "GPU-abc"}


def test_replicas_on_one_gpu_divide_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert [(place.gpus, place.num_sharers) for place in divide(3)] == [(("0",), 2), (("1",), 1), (("0",), 2)]
    assert {place.num_sharers for place in divide(2)} == {1}
    source = EngineSource("m", "C", "/dir", "tiny", "1.0", asdict(HandlerConfig(engine=EngineConfig(memory_fraction=0.8))))
    assert source.sharing_gpus(2).config["engine"]["memory_fraction"] == 0.4
    assert source.sharing_gpus(1) == source
    assert source.config["engine"]["memory_fraction"] == 0.8
