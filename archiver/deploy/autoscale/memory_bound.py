"""How many replicas of a model the memory of this machine suffices for.

Engines of one model divide a GPU's ``memory_fraction`` among them: each brings its own weights, activations and context, and what remains
for keys and values gets smaller. In a host's memory each takes everything for itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from archiver.errors import UsageError
from archiver.plan.hardware.detect import detect
from handlers import host_limits

_HOST_RESERVE = 0.05
"""Of a host's memory: for the frontend, the system, and what both cache."""
_KV_SHARE = 0.25
"""Of a GPU's share that must remain for keys and values: many engines with little of it run fewer sequences than one alone."""


@dataclass(frozen=True)
class ReplicaMemory:
    """Bytes that one replica takes: ``fixed`` of weights, activations, context and graphs, and ``kv`` of keys and values."""

    fixed: float
    kv: float = 0.0

    @classmethod
    def of_engine(cls, memory: Mapping[str, Any]) -> ReplicaMemory | None:
        """Read what a continuous worker says of its memory: what was planned for an engine, else measured; None before one has loaded."""
        engines, measured, predicted = memory["engines"], memory["measured"], memory["predicted"]
        if not engines or not any(measured.values()):
            return None
        parts = {part: taken / engines for part, taken in measured.items()}
        kv = parts.pop("kv_cache")
        if predicted:
            parts = {part: estimate["expected"] for part, estimate in predicted.items() if part != "kv_cache"}
        return cls(sum(parts.values()), kv)


def affordable_engines(memory: Mapping[str, Any], replicas: int) -> int | None:
    """Return how many engines fit on this machine, by what their worker says of their memory; None if that cannot be told."""
    replica, num_gpus = ReplicaMemory.of_engine(memory), _num_gpus()
    if replica is None or num_gpus is None:
        return None
    return affordable_on_gpus(replica, replicas, num_gpus=num_gpus) if num_gpus else _affordable_here(replica, replicas)


def affordable_workers(pids: Iterable[int]) -> int | None:
    """Return how many workers this machine's memory suffices for, each as large as the largest of these processes; None if none is seen."""
    import psutil

    taken: list[int] = []  # memory that each shares with no other, as it does the pages of libraries
    with contextlib.suppress(psutil.Error):
        taken += (psutil.Process(pid).memory_full_info().uss for pid in pids)
    return _affordable_here(ReplicaMemory(max(taken)), len(taken)) if taken else None


def affordable_on_host(replica: ReplicaMemory, replicas: int, *, free_bytes: int, total_bytes: int) -> int:
    """Return how many fit, with those that are there, into what is free and into all that a container may have, ``total_bytes``."""
    each = replica.fixed + replica.kv
    room = min(free_bytes, total_bytes - replicas * each) - _HOST_RESERVE * total_bytes
    return replicas + int(max(room, 0) // each)


def affordable_on_gpus(replica: ReplicaMemory, replicas: int, *, num_gpus: int) -> int:
    """Return how many fit beside each other into the share of every GPU that the engines were given."""
    sharers = -(-replicas // num_gpus)
    share = sharers * (replica.fixed + replica.kv)
    return max(num_gpus * int(share * (1 - _KV_SHARE) // replica.fixed), replicas)


def _affordable_here(replica: ReplicaMemory, replicas: int) -> int:
    import psutil

    return affordable_on_host(replica, replicas, free_bytes=psutil.virtual_memory().available, total_bytes=host_limits.memory_bytes())


@cache
def _num_gpus() -> int | None:
    """Return how many GPUs engines can use here; None if they are of a kind that has no profile."""
    try:
        gpus = detect()
    except UsageError:
        return None
    return gpus.count if gpus else 0
