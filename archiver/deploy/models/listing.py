"""The models of a running server, with the engines of those that run on this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from archiver.deploy.management import ManagementError, ModelNotFound, ModelStatus
from archiver.deploy.running_server import RunningServer
from archiver.deploy.worker_control import Replica
from archiver.errors import UsageError


@dataclass(frozen=True)
class ListedModel:
    """One version. ``replicas``: a continuous model's engines; None where they cannot be known, empty if its worker has none of its own."""

    status: ModelStatus
    replicas: tuple[Replica, ...] | None = None

    @property
    def kind(self) -> str:
        """How requests are put together: at every step, or in batches."""
        return "continuous" if self.status.is_continuous else "synchronous"

    @property
    def size(self) -> str:
        """What it scales by: how many are ready, of how many."""
        if self.replicas:
            ready = sum(replica.state == "ready" for replica in self.replicas)
            return f"{ready}/{len(self.replicas)} replica{'s' * (len(self.replicas) > 1)}"
        wanted = self.status.min_workers
        return f"{self.status.num_ready}/{wanted} worker{'s' * (wanted != 1)}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as for JSON."""
        workers = [asdict(worker) | {"started": worker.started.isoformat()} for worker in self.status.workers]
        replicas = None if self.replicas is None else [asdict(replica) for replica in self.replicas]
        return asdict(self.status) | {"is_ready": self.status.is_ready, "workers": workers, "replicas": replicas}


def list_models(server: RunningServer) -> tuple[ListedModel, ...]:
    """Return all versions of all models. Raises ManagementError."""
    return tuple(listed for model in server.management.list() for listed in _versions_if_any(server, model.name))


def list_versions(server: RunningServer, name: str) -> tuple[ListedModel, ...]:
    """Return all versions of one model. Raises ManagementError."""
    return tuple(ListedModel(status, _replicas(server, status)) for status in server.management.versions(name))


def only_version(server: RunningServer, name: str, version: str | None = None) -> ModelStatus:
    """Return the version named, or the only one there is; raises UsageError if there are several to choose from."""
    if version:
        return server.management.describe(name, version)
    statuses = server.management.versions(name)
    if len(statuses) > 1:
        raise UsageError(f"{name} has the versions {', '.join(status.version for status in statuses)}: say which with --version")
    return statuses[0]


def _versions_if_any(server: RunningServer, name: str) -> tuple[ListedModel, ...]:
    try:
        return list_versions(server, name)
    except ModelNotFound:  # removed since it was listed
        return ()


def _replicas(server: RunningServer, status: ModelStatus) -> tuple[Replica, ...] | None:
    if not (status.is_continuous and server.local and status.workers):
        return None
    try:
        return server.local.control(status, status.workers[0]).replicas()
    except ManagementError:  # its worker is loading, or not one of ours
        return None
