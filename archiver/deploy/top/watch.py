"""Look at a server again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from archiver.deploy.management import ModelStatus
from archiver.deploy.scrape import MetricsUnavailable
from archiver.deploy.top.history import History
from archiver.deploy.top.metrics import Metrics
from archiver.deploy.top.snapshot import Snapshot, take_snapshot


class Watch:
    """Remembers the last minute. ``statuses``: what the management API says, or nothing. Not thread-safe."""

    def __init__(self, metrics: Metrics, statuses: Callable[[], Sequence[ModelStatus]]) -> None:
        self._metrics = metrics
        self._statuses = statuses
        self._history = History()

    def look(self) -> Snapshot:
        """Return what is there now; that nothing is there is a snapshot, too."""
        try:
            self._history = self._history.add(self._metrics.read())
        except MetricsUnavailable as problem:
            return Snapshot(self._metrics.url, problem=str(problem))
        return take_snapshot(self._metrics.url, self._history, self._statuses())
