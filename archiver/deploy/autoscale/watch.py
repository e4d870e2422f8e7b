"""Look at one model: how many replicas it has, what its load is, and what memory allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from archiver.deploy.autoscale.policy import Observation
from archiver.deploy.autoscale.signals import Reading, Served, Target, read_signal
from archiver.deploy.management import ModelNotFound
from archiver.deploy.scrape import Samples


class VersionGone(ModelNotFound):
    """The version that was to be scaled, and no other, is not registered."""


@dataclass(frozen=True)
class Replicas:
    """What serves a model now: see ``Observation`` for ``is_settled`` and ``affordable``."""

    served: Served
    is_settled: bool
    affordable: int | None = None


class ReplicaSet(Protocol):
    """A model's engines, or its workers. Both methods raise ArchiverError if the server does not do its part, VersionGone if it cannot."""

    def look(self) -> Replicas:
        """Return what there is."""
        ...

    def scale(self, replicas: int) -> None:
        """Order another number; whether it is there already on return, ``look`` tells."""
        ...


@dataclass(frozen=True)
class Look:
    """What the policy is told, and the load in the target's unit, for people; None where there is nothing to measure."""

    observation: Observation
    reading: Reading | None = None


class Watch:
    """Looks at intervals of at least two seconds, as the metrics change once a second. Not thread-safe.

    Raises ArchiverError if there is nothing to look at.
    """

    def __init__(self, replicas: ReplicaSet, target: Target, scrape: Callable[[], Samples]) -> None:
        self._replicas = replicas
        self._target = target
        self._scrape = scrape
        self._version = replicas.look().served.version
        self._before = scrape()

    def look(self) -> Look:
        """Return what is there now and the load since the last look. Raises ArchiverError if the server cannot be asked.

        The first look at another version is at replicas that are not settled: what was seen of the one before says nothing of it.
        """
        replicas = self._replicas.look()
        before, self._before = self._before, self._scrape()
        served, at_s = replicas.served, self._before.scraped_s
        is_settled = replicas.is_settled and served.version == self._version
        self._version = served.version
        if not is_settled or not served.replicas:
            return Look(Observation(at_s, served.replicas, is_settled))
        reading = read_signal(self._target, served, self._before, before)
        if reading is None:
            return Look(Observation(at_s, served.replicas, affordable=replicas.affordable))
        load = reading.measured / self._target.value
        observation = Observation(at_s, served.replicas, load=load, occupancy=reading.occupancy, affordable=replicas.affordable)
        return Look(observation, reading)
