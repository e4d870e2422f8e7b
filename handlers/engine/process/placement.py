"""What each of several engines on one machine computes with: its share of the CPU cores, and of the GPUs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from handlers.errors import ConfigError
from handlers.host_limits import num_cores

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Placement:
    """``cores`` by number, ``gpus`` as in ``CUDA_VISIBLE_DEVICES``; None where a process takes what it finds.

    ``num_ranks`` processes share this, and the weights of one engine; each has a GPU of its own where there are any.
    ``num_sharers`` engines, this one among them, divide the memory of each of the GPUs. ``num_threads``: fewer than ``cores`` where a
    container's quota is smaller than that.
    """

    cores: tuple[int, ...] | None = None
    gpus: tuple[str, ...] | None = None
    num_sharers: int = 1
    num_threads: int | None = None
    num_ranks: int = 1

    def environment(self) -> dict[str, str]:
        """Return the variables that make torch see no more than this."""
        variables = {}
        if self.cores is not None:
            asked = os.environ.get("OMP_NUM_THREADS", "")
            limits = [self.num_threads, int(asked) if asked.isdigit() else None]
            variables["OMP_NUM_THREADS"] = str(min([len(self.cores), *(limit for limit in limits if limit)]))
        if self.gpus is not None:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus)
        return variables


def divide(count: int, num_ranks: int = 1) -> list[Placement]:
    """Return the places of ``count`` replicas, each of ``num_ranks`` processes. One alone takes everything.

    Where there are GPUs, all share the cores. Raises ConfigError if several ranks would have to share a GPU.
    """
    if (gpus := visible_gpus()) and num_ranks > 1:
        return [Placement(gpus=group, num_ranks=num_ranks) for group in _groups(gpus, count, num_ranks)]
    if count > 1 and gpus:
        places = [share(gpus, index, count) for index in range(count)]
        return [Placement(gpus=place, num_sharers=places.count(place)) for place in places]
    if count > 1 and (cores := usable_cores()):
        num_threads = max(num_cores() // count, 1)
        return [Placement(share(cores, index, count), num_threads=num_threads, num_ranks=num_ranks) for index in range(count)]
    return [Placement(num_ranks=num_ranks)] * count


def _groups(gpus: Sequence[str], count: int, num_ranks: int) -> list[tuple[str, ...]]:
    if count * num_ranks > len(gpus):
        raise ConfigError(
            f"{count} replicas of {num_ranks} ranks (handler.engine.tensor_parallel) need {count * num_ranks} GPUs, "
            f"and there are {len(gpus)}: {', '.join(gpus)}"
        )
    return [tuple(gpus[index * num_ranks : (index + 1) * num_ranks]) for index in range(count)]


def share(items: Sequence[Item], index: int, count: int) -> tuple[Item, ...]:
    """Return one of ``count`` nearly equal parts of ``items`` (at least one); with more parts than items, some get the same."""
    if count >= len(items):
        return (items[index % len(items)],)
    return tuple(items[len(items) * index // count : len(items) * (index + 1) // count])


def usable_cores() -> list[int]:
    """Return the cores that this process may run on; none where the system does not say (macOS)."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def visible_gpus() -> list[str]:
    """Return the NVIDIA GPUs that this process may use, without loading a driver."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name.strip()]
    devices = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return [str(index) for index in range(len(devices))]
