"""What TorchServe's management API says about models and their workers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class WorkerStatus:
    """One worker process. TorchServe shows ``UNLOADING`` for one that is still starting, and for one that died."""

    pid: int
    is_ready: bool


@dataclass(frozen=True)
class ModelStatus:
    """``min_workers``: how many workers the frontend keeps alive for this model."""

    min_workers: int
    workers: tuple[WorkerStatus, ...]

    @property
    def is_ready(self) -> bool:
        """Whether as many workers as wanted have loaded the model."""
        return sum(worker.is_ready for worker in self.workers) >= self.min_workers


class ManagementClient:
    """Ask one server. Describing works with the model API off too: TorchServe 0.12 then refuses registering and removing only."""

    def __init__(self, url: str, token: Callable[[], str | None] = lambda: None) -> None:
        self._token = token  # asked at each request: the frontend writes it while it starts
        # A proxy from the environment has no business between two processes of one machine.
        self._http = httpx.Client(base_url=url, timeout=10, trust_env=False)

    def describe(self, model: str) -> ModelStatus | None:
        """Return the status of a model's default version, or None while the server does not answer or does not know it.

        The plain description only: ``?customized=true`` asks the worker, which a busy continuous handler does not survive.
        """
        token = self._token()
        try:
            response = self._http.get(f"/models/{model}", headers={"Authorization": f"Bearer {token}"} if token else None)
        except httpx.TransportError:
            return None
        return _status_from(response.json()[0]) if response.status_code == httpx.codes.OK else None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()


def _status_from(description: dict[str, Any]) -> ModelStatus:
    workers = tuple(WorkerStatus(worker["pid"], worker["status"] == "READY") for worker in description["workers"])
    return ModelStatus(description["minWorkers"], workers)
