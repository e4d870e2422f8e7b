"""How much of the machine this process may use: what containers and ``taskset`` leave of cores and memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def memory_bytes(root: Path = Path("/")) -> int:
    """Return the machine's memory, or the control group's limit if that is less; never what is free, which changes all the time."""
    limits = [int(text) for text in _settings(root, "memory.max", "memory", "memory.limit_in_bytes") if text.isdigit()]
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits])


def free_bytes(root: Path = Path("/")) -> int:
    """Return what control groups leave of their limits; without a limit the machine's memory. Files that can be dropped count as free."""
    limits = _settings(root, "memory.max", "memory", "memory.limit_in_bytes")
    used = _settings(root, "memory.current", "memory", "memory.usage_in_bytes")
    stats = _settings(root, "memory.stat", "memory", "memory.stat")
    groups = zip(limits, used, stats, strict=False)
    left = [int(limit) - int(taken) + _droppable_bytes(stat) for limit, taken, stat in groups if limit.isdigit()]
    return max(min([memory_bytes(root), *left]), 0)


def _droppable_bytes(stat: str) -> int:
    """Return the pages of files that nobody uses; version 1 says with ``total_`` what is in the groups below, too."""
    fields = dict(line.split() for line in stat.splitlines())
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))


def num_cores(root: Path = Path("/")) -> int:
    """Return the logical cores that the process may run on, or the whole ones in the control group's quota if those are fewer."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [text.split() for text in _settings(root, "cpu.max", "cpu", "cpu.cfs_quota_us")]
    periods = _settings(root, "cpu.max", "cpu", "cpu.cfs_period_us")  # of version 2 the same file
    shares = [int(quota[0]) // int(period.split()[-1]) for quota, period in zip(quotas, periods, strict=True) if quota[0].isdigit()]
    return max(min([cores, *shares]), 1)


def _settings(root: Path, name: str, controller: str, old_name: str) -> Iterator[str]:
    """Yield a setting of this process's control group and of all above it: a limit binds everything below.

    ``controller`` and ``old_name`` are where version 1 of control groups keeps it.
    """
    membership = root / "proc/self/cgroup"
    for line in membership.read_text().splitlines() if membership.is_file() else ():
        number, controllers, path = line.split(":", 2)
        if number != "0" and controller not in controllers.split(","):
            continue
        mount, file = ("sys/fs/cgroup", name) if number == "0" else (f"sys/fs/cgroup/{controller}", old_name)
        group = Path(path.lstrip("/"))
        for above in (group, *group.parents):
            setting = root / mount / above / file
            if setting.is_file():
                yield setting.read_text().strip()
