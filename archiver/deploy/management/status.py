"""Models and workers as the management API describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class ModelSummary:
    """A registered model. ``archive``: where its default version came from, a name in the model store or a URL."""

    name: str
    archive: str


@dataclass(frozen=True)
class WorkerStatus:
    """One worker process. TorchServe shows ``UNLOADING`` for one that is still starting, and for one that died.

    ``memory_bytes`` is 0 where the server measures none (``disable_system_metrics=true``).
    """

    id: str
    pid: int
    is_ready: bool
    started: datetime
    memory_bytes: int = 0


@dataclass(frozen=True)
class ModelStatus:
    """One version of a model.

    ``min_workers``: how many the frontend keeps alive. ``is_continuous``: requests join and leave at every step, and it has one worker.
    ``workers`` are in TorchServe's order: scaling down ends the last ones. ``pending_requests`` wait in the frontend, for whom it has
    ``queue_room`` places left.
    """

    name: str
    version: str
    is_default: bool
    is_continuous: bool
    archive: str
    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay_ms: int
    workers: tuple[WorkerStatus, ...] = ()
    pending_requests: int = 0
    queue_room: int = 0

    @property
    def num_ready(self) -> int:
        """How many workers have loaded the model."""
        return sum(worker.is_ready for worker in self.workers)

    @property
    def is_ready(self) -> bool:
        """Whether as many workers as wanted have loaded the model."""
        return self.num_ready >= self.min_workers


def read_page(answer: Any) -> tuple[list[ModelSummary], str | None]:
    """Read ``GET /models``: some models, and the token of the next page if there are more."""
    return [ModelSummary(entry["modelName"], entry["modelUrl"]) for entry in answer["models"]], answer.get("nextPageToken")


def read_statuses(answer: Any) -> tuple[ModelStatus, ...]:
    """Read ``GET /models/<name>`` in any of its forms: one version or more, about none of which it says whether it is the default."""
    if not answer:
        raise ValueError("a model has at least one version")
    return tuple(read_status(description, is_default=False) for description in answer)


def read_worker_answer(answer: Any) -> dict[str, Any]:
    """Read what a worker says of itself in ``GET /models/<name>?customized=true``."""
    return dict(answer[0].get("customizedMetadata") or {})


def read_status(description: Mapping[str, Any], *, is_default: bool) -> ModelStatus:
    """Read an entry of ``GET /models/<name>``, which says nothing about which version is the default."""
    queue = description.get("jobQueueStatus") or {}
    return ModelStatus(
        name=description["modelName"],
        version=description["modelVersion"],
        is_default=is_default,
        is_continuous=bool(description.get("continuousBatching")),
        archive=description["modelUrl"],
        min_workers=description["minWorkers"],
        max_workers=description["maxWorkers"],
        batch_size=description["batchSize"],
        max_batch_delay_ms=description["maxBatchDelay"],
        workers=tuple(map(_read_worker, description["workers"])),
        pending_requests=queue.get("pendingRequests", 0),
        queue_room=queue.get("remainingCapacity", 0),
    )


def _read_worker(worker: Mapping[str, Any]) -> WorkerStatus:
    started = datetime.fromisoformat(worker["startTime"])
    return WorkerStatus(worker["id"], worker["pid"], worker["status"] == "READY", started, worker.get("memoryUsage", 0))
