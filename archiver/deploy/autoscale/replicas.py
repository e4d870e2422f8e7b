"""The two kinds of replicas that a model can have: engines of its one continuous worker, or synchronous workers."""

from __future__ import annotations

from dataclasses import dataclass

from archiver.deploy.autoscale.memory_bound import affordable_engines, affordable_workers
from archiver.deploy.autoscale.signals import Served
from archiver.deploy.autoscale.watch import Replicas, ReplicaSet, VersionGone
from archiver.deploy.local_server import LocalServer
from archiver.deploy.management import ModelNotFound, ModelStatus
from archiver.deploy.models.scaling import scale_model
from archiver.deploy.running_server import RunningServer
from archiver.deploy.worker_control import WorkerControl
from archiver.errors import UsageError


@dataclass(frozen=True)
class ModelReplicas:
    """What serves a model; without ``version`` its default version, whichever that is by now.

    Both methods raise ArchiverError: UsageError for a model that cannot be scaled from here, VersionGone once ``version`` is not there.
    """

    server: RunningServer
    name: str
    version: str | None = None

    def look(self) -> Replicas:
        """See ReplicaSet."""
        return self._find().look()

    def scale(self, replicas: int) -> None:
        """See ReplicaSet."""
        self._find().scale(replicas)

    def _find(self) -> ReplicaSet:
        status = self._describe()
        if not status.is_continuous:
            return WorkerReplicas(self.server, status)
        if self.server.local is None:
            raise UsageError(
                f"{self.name} is a continuous model, whose engines are scaled on their own machine only: run this there, as its user"
            )
        return EngineReplicas(self.server.local, status)

    def _describe(self) -> ModelStatus:
        try:
            return self.server.management.describe(self.name, self.version)
        except ModelNotFound:
            if self.version is None:
                raise
            raise VersionGone(
                f"{self.name} {self.version} is not registered (any more): without --version the default version is scaled, whichever it is"
            ) from None


@dataclass(frozen=True)
class EngineReplicas:
    """Engines of a continuous model, counted and ordered at its worker's control socket."""

    local: LocalServer
    status: ModelStatus

    def look(self) -> Replicas:
        """See ReplicaSet; a worker that is restarting has none, nor has one whose only engine is."""
        control, model = self._control(), self.status
        if control is None:
            return Replicas(Served(model.name, model.version, 0), is_settled=False)
        described = control.describe()
        states = [replica["state"] for replica in described["replicas"]]
        if not states and described["memory"]["engines"]:
            raise UsageError(f"the engine of {model.name} runs inside its worker, alone: set handler.engine.process: true")
        num_replicas = len(states) - states.count("draining")
        affordable = affordable_engines(described["memory"], num_replicas)
        return Replicas(Served(model.name, model.version, num_replicas), set(states) == {"ready"}, affordable)

    def scale(self, replicas: int) -> None:
        """See ReplicaSet; returns at once."""
        if control := self._control():
            control.scale(replicas)

    def _control(self) -> WorkerControl | None:
        ready = (self.local.control(self.status, worker) for worker in self.status.workers if worker.is_ready)
        return next(ready, None)


@dataclass(frozen=True)
class WorkerReplicas:
    """TorchServe's workers of a synchronous model; on another machine, where nothing is known of memory, too."""

    server: RunningServer
    status: ModelStatus

    def look(self) -> Replicas:
        """See ReplicaSet."""
        status = self.status
        is_settled = status.num_ready == len(status.workers) == status.min_workers
        affordable = affordable_workers(worker.pid for worker in status.workers) if self.server.local and is_settled else None
        served = Served(
            status.name, status.version, status.min_workers, status.batch_size, status.pending_requests, is_default=status.is_default
        )
        return Replicas(served, is_settled, affordable)

    def scale(self, replicas: int) -> None:
        """See ReplicaSet; waits for new workers, and for those that end to finish what they are working on."""
        scale_model(self.server, self.status, replicas)
