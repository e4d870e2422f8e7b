"""The host's memory as the kernel tells it."""

from __future__ import annotations

import sys

import psutil
import pytest
import torch

from handlers.engine.memory.device import HostMemory, memory_of
from handlers.engine.memory.nvml import used_bytes

MIB = 1 << 20
SLACK = 8 * MIB
"""Pages that something else takes or gives back meanwhile, and the kernel's own counting."""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak")
def test_the_peak_is_what_was_there_at_once_since_the_reset():
    memory = HostMemory()
    torch.ones(64 * MIB, dtype=torch.uint8)  # before the reset: not counted
    memory.release_unused()
    before = memory.own_bytes()
    memory.reset_peak()
    assert abs(memory.peak_bytes() - before) < SLACK
    for _ in range(3):
        torch.ones(32 * MIB, dtype=torch.uint8)  # one after the other
    memory.release_unused()
    assert abs(memory.peak_bytes() - before - 32 * MIB) < SLACK
    assert abs(memory.own_bytes() - before) < SLACK


def test_sizes_are_the_systems():
    memory = memory_of(torch.device("cpu"))
    assert memory.kind == "cpu"
    assert 0 < memory.own_bytes() < memory.total_bytes == psutil.virtual_memory().total
    assert 0 < memory.free_bytes() <= memory.total_bytes


def test_where_the_peak_cannot_be_reset_it_is_what_there_is(monkeypatch, tmp_path):
    monkeypatch.setattr("handlers.engine.memory.device._CLEAR_REFS", tmp_path / "nowhere" / "clear_refs")
    memory = HostMemory()
    memory.reset_peak()
    assert abs(memory.peak_bytes() - memory.own_bytes()) < SLACK


def test_nvml_knows_no_gpu_of_that_name():
    assert used_bytes("00000000-0000-0000-0000-000000000000") is None
