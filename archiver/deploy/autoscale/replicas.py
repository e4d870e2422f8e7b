"""The two kinds of replicas that a model can have: engines of its one continuous worker, or synchronous workers."""

from __future__ import annotations

from dataclasses import dataclass

from archiver.deploy.autoscale.memory_bound import affordable_engines, affordable_workers
from archiver.deploy.autoscale.signals import Served
from archiver.deploy.autoscale.watch import Replicas, ReplicaSet
from archiver.deploy.local_server import LocalServer
from archiver.deploy.management import ManagementClient
from archiver.deploy.models.scaling import scale_model
from archiver.deploy.running_server import RunningServer
from archiver.deploy.worker_control import WorkerControl
from archiver.errors import UsageError


@dataclass(frozen=True)
class EngineReplicas:
    """Engines of a continuous model, counted and ordered at its worker's control socket."""

    management: ManagementClient
    local: LocalServer
    name: str
    version: str

    def look(self) -> Replicas:
        """See ReplicaSet; a worker that is restarting has none."""
        control = self._control()
        if control is None:
            return Replicas(Served(self.name, self.version, 0), is_settled=False)
        described = control.describe()
        states = [replica["state"] for replica in described["replicas"]]
        if not states:
            raise UsageError(f"the engine of {self.name} runs inside its worker, alone: set handler.engine.process: true")
        num_replicas = len(states) - states.count("draining")
        affordable = affordable_engines(described["memory"], num_replicas)
        return Replicas(Served(self.name, self.version, num_replicas), set(states) == {"ready"}, affordable)

    def scale(self, replicas: int) -> None:
        """See ReplicaSet; returns at once."""
        if control := self._control():
            control.scale(replicas)

    def _control(self) -> WorkerControl | None:
        status = self.management.describe(self.name, self.version)
        ready = (self.local.control(status, worker) for worker in status.workers if worker.is_ready)
        return next(ready, None)


@dataclass(frozen=True)
class WorkerReplicas:
    """TorchServe's workers of a synchronous model; on another machine, where nothing is known of memory, too."""

    server: RunningServer
    name: str
    version: str

    def look(self) -> Replicas:
        """See ReplicaSet."""
        status = self.server.management.describe(self.name, self.version)
        is_settled = status.num_ready == len(status.workers) == status.min_workers
        affordable = affordable_workers(worker.pid for worker in status.workers) if self.server.local and is_settled else None
        served = Served(self.name, self.version, status.min_workers, status.batch_size, status.pending_requests)
        return Replicas(served, is_settled, affordable)

    def scale(self, replicas: int) -> None:
        """See ReplicaSet; waits for new workers, and for those that end to finish what they are working on."""
        scale_model(self.server, self.server.management.describe(self.name, self.version), replicas)


def find_replicas(server: RunningServer, name: str, version: str | None = None) -> ReplicaSet:
    """Return what serves a model, by default its default version. Raises ArchiverError if it cannot be scaled from here."""
    status = server.management.describe(name, version)
    if not status.is_continuous:
        return WorkerReplicas(server, name, status.version)
    if server.local is None:
        raise UsageError(f"{name} is a continuous model, whose engines are scaled on their own machine only: run this there, as its user")
    return EngineReplicas(server.management, server.local, name, status.version)
