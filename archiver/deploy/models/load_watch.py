"""While a server loads a model: tell what the worker does, and why it fails if it does."""

from __future__ import annotations

from archiver.deploy.management import LoadFailed, ModelStatus
from archiver.deploy.models.progress import Progress
from archiver.deploy.running_server import RunningServer
from archiver.deploy.worker_log import ServerLog


class LoadWatch:
    """Is told the status of a model that loads, again and again; reads the log of a server on this machine along with it."""

    def __init__(self, server: RunningServer, progress: Progress) -> None:
        self._path = server.local.worker_log if server.local else None
        self._log = ServerLog.from_now_on(self._path) if self._path else None
        self._progress = progress

    def __call__(self, status: ModelStatus) -> None:
        """Tell how far it is. Raises LoadFailed, with the worker's own words, once one has failed."""
        activity = ""
        if self._log:
            self._log.update()
            if cause := self._log.failure(status.name, status.version):
                raise LoadFailed(f"{status.name} {status.version} failed to load: {cause} (log: {self._path})")
            activity = self._log.activity(status.name, status.version)
        ready = f"{status.num_ready} of {status.min_workers} workers ready"
        self._progress.doing(f"{status.name} {status.version}: {activity or 'loading'}, {ready}")
