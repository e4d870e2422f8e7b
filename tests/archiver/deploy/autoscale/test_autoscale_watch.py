"""A look at a model: when there is something to measure, and what the policy is told of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archiver.deploy.autoscale.policy import Observation
from archiver.deploy.autoscale.signals import Reading, Served, Target
from archiver.deploy.autoscale.watch import Look, Replicas, Watch
from archiver.deploy.scrape import MetricsUnavailable, Samples
from archiver.errors import ArchiverError


class FakeReplicas:
    """Is whatever the test says."""

    def __init__(self, replicas: int = 2, *, is_settled: bool = True, name: str = "chat") -> None:
        self.now = Replicas(Served(name, "1.0", replicas), is_settled, affordable=5)

    def look(self) -> Replicas:
        return self.now

    def scale(self, replicas: int) -> None:
        raise AssertionError("whoever looks does not scale")


def readings() -> Iterator[Samples]:
    """Metrics of a model in which more and more sequences run, every 5 seconds."""
    for index in range(10):
        yield Samples({"marquee_running_sequences": (({"ModelName": "chat", "ModelVersion": "1.0"}, 4.0 * index),)}, scraped_s=5.0 * index)


def watch(replicas: FakeReplicas) -> Watch:
    return Watch(replicas, Target("running", 4), readings().__next__)


def test_a_look_compares_with_the_one_before():
    watching = watch(FakeReplicas())
    assert watching.look() == Look(Observation(5.0, 2, load=0.5, occupancy=0.5, affordable=5), Reading(2.0, 0.5, 0))
    assert watching.look() == Look(Observation(10.0, 2, load=1.0, occupancy=1.0, affordable=5), Reading(4.0, 1.0, 0))


def test_of_what_has_not_reported_there_is_no_load():
    assert watch(FakeReplicas(name="silent")).look() == Look(Observation(5.0, 2, affordable=5))


@pytest.mark.parametrize(("replicas", "is_settled"), [(2, False), (0, True)])
def test_while_replicas_come_and_go_nothing_is_measured(replicas: int, is_settled: bool):
    assert watch(FakeReplicas(replicas, is_settled=is_settled)).look().reading is None


def test_with_another_version_all_begins_anew():
    replicas = FakeReplicas()
    watching = watch(replicas)
    replicas.now = Replicas(Served("chat", "2.0", 2), is_settled=True)
    assert watching.look() == Look(Observation(5.0, 2, is_settled=False))
    assert watching.look() == Look(Observation(10.0, 2))


def test_replicas_must_be_there_at_the_start():
    class Gone(FakeReplicas):
        def look(self) -> Replicas:
            raise ArchiverError("no such model")

    with pytest.raises(ArchiverError, match="no such model"):
        watch(Gone())


def test_and_so_must_metrics():
    def scrape() -> Samples:
        raise MetricsUnavailable("no metrics")

    with pytest.raises(MetricsUnavailable):
        Watch(FakeReplicas(), Target("running", 4), scrape)
