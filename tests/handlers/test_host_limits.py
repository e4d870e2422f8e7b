"""What a container or a quota leaves of a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from handlers import host_limits


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def group(root: Path, membership: str) -> Path:
    write(root / "proc/self/cgroup", membership)
    return root / "sys/fs/cgroup"


def test_a_container_has_the_memory_of_its_limit(tmp_path):
    cgroup = group(tmp_path, "0::/kubepods/pod1/box\n")
    write(cgroup / "kubepods/pod1/box/memory.max", "max\n")
    write(cgroup / "kubepods/pod1/memory.max", f"{1 << 29}\n")
    assert host_limits.memory_bytes(tmp_path) == 1 << 29


def test_a_limit_of_the_old_kind_counts_too(tmp_path):
    cgroup = group(tmp_path, "9:name=systemd:/\n4:cpu,memory:/docker/box\n0::/\n")
    write(cgroup / "memory/docker/box/memory.limit_in_bytes", f"{1 << 28}\n")
    write(cgroup / "memory/memory.limit_in_bytes", "9223372036854771712\n")
    assert host_limits.memory_bytes(tmp_path) == 1 << 28


def test_without_a_limit_the_machines_memory_counts(tmp_path):
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert host_limits.memory_bytes(tmp_path) == whole
    write(group(tmp_path, "0::/\n") / "memory.max", "9223372036854771712\n")
    assert host_limits.memory_bytes(tmp_path) == whole


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("6400000 100000", 8)])
def test_a_quota_counts_in_whole_cores(tmp_path, monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    write(group(tmp_path, "0::/box\n") / "box/cpu.max", quota)
    assert host_limits.num_cores(tmp_path) == cores


def test_free_is_what_the_tightest_limit_leaves(tmp_path):
    cgroup = group(tmp_path, "0::/pod/box\n")
    for level, limit, used, droppable in (("pod/box", "max", 5 << 20, 0), ("pod", f"{1 << 30}", 600 << 20, 100 << 20)):
        write(cgroup / level / "memory.max", f"{limit}\n")
        write(cgroup / level / "memory.current", f"{used}\n")
        write(cgroup / level / "memory.stat", f"anon 1\ninactive_file {droppable}\n")
    write(cgroup / "memory.stat", "anon 1\n")
    assert host_limits.free_bytes(tmp_path) == (1024 - 600 + 100) << 20


def test_the_old_kind_counts_the_groups_below(tmp_path):
    box = group(tmp_path, "4:cpu,memory:/box\n") / "memory/box"
    write(box / "memory.limit_in_bytes", f"{1 << 30}\n")
    write(box / "memory.usage_in_bytes", f"{600 << 20}\n")
    write(box / "memory.stat", f"inactive_file 0\ntotal_inactive_file {100 << 20}\n")
    assert host_limits.free_bytes(tmp_path) == (1024 - 600 + 100) << 20


def test_the_old_kind_has_the_period_in_a_file_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    box = group(tmp_path, "4:cpu:/box\n") / "cpu/box"
    write(box / "cpu.cfs_quota_us", "50000\n")
    write(box / "cpu.cfs_period_us", "10000\n")
    assert host_limits.num_cores(tmp_path) == 5


def test_without_a_limit_all_may_be_free(tmp_path):
    assert host_limits.free_bytes(tmp_path) == host_limits.memory_bytes(tmp_path)
