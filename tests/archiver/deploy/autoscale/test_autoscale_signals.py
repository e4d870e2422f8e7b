"""What is read out of two readings of the metrics, for each target and both kinds of models."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from archiver.deploy.autoscale.signals import Reading, Served, Target, read_signal
from archiver.deploy.scrape import Samples
from archiver.errors import UsageError

QUEUE, RUNNING, KV_USAGE = Target("queue", 200), Target("running", 4), Target("kv usage", 0.5)
CHAT, CLASSIFIER = Served("chat", "1.0", 2), Served("classifier", "1.0", 2, batch_size=4, waiting=3)
INTERVAL_S = 5.0


def chat(at_s: float, *, waits: tuple[float, ...] = (), **gauges: float) -> Samples:
    """Return the metrics of a continuous model: gauges by the end of their names, and how long the sequences that have ended had waited."""
    labels = {"ModelName": "chat", "ModelVersion": "1.0"}
    buckets = [({**labels, "le": str(bound)}, float(sum(wait <= bound for wait in waits))) for bound in (0.1, 1.0, math.inf)]
    others = ({**labels, "ModelName": "other"}, 99.0), ({**labels, "ModelVersion": "2.0"}, 99.0)
    by_name = {f"marquee_{name}": ((labels, value), *others) for name, value in ({"running_sequences": 0.0} | gauges).items()}
    histogram = {
        "marquee_queue_seconds_bucket": tuple(buckets),
        "marquee_queue_seconds_sum": ((labels, sum(waits)),),
    }
    return Samples(by_name | histogram, at_s)


def classifier(at_s: float, num_answered: float, present_s: float, queued_s: float) -> Samples:
    """Return TorchServe's own metrics of a synchronous model."""
    labels = {"model_name": "classifier", "model_version": "1.0"}
    values = {
        "ts_inference_requests_total": num_answered,
        "ts_inference_latency_microseconds_total": present_s * 1e6,
        "ts_queue_latency_microseconds_total": queued_s * 1e6,
    }
    return Samples({name: ((labels, value), ({**labels, "model_version": "2.0"}, 1e9)) for name, value in values.items()}, at_s)


def read(target: Target, now: Samples, before: Samples, model: Served = CHAT) -> Reading | None:
    return read_signal(target, model, now, before)


BEFORE = chat(0.0)


def test_running_counts_who_waits_too_and_spreads_it_over_the_replicas():
    now = chat(INTERVAL_S, running_sequences=8, waiting_sequences=4)
    assert read(RUNNING, now, BEFORE) == Reading(6.0, 1.5, 4)


def test_kv_usage_is_a_share_of_all_blocks():
    now = chat(INTERVAL_S, running_sequences=2, kv_blocks_used=75, kv_blocks=100)
    assert read(KV_USAGE, now, BEFORE) == Reading(0.75, 1.5, 0)


def test_the_queue_is_what_sequences_that_ended_had_waited():
    now = chat(INTERVAL_S, waits=(9.0, 0.4, 0.6), waiting_sequences=1)
    assert read(QUEUE, now, replace(BEFORE, by_name=chat(0.0, waits=(9.0,)).by_name)) == Reading(500, 0.0, 1)


def test_the_queue_is_at_least_what_those_that_wait_have_to_expect():
    before = chat(0.0, waiting_sequences=4)
    assert read(QUEUE, chat(INTERVAL_S, waiting_sequences=6), before) == Reading(20_000, 0.0, 6), "none has ended in 5 s"
    now = chat(INTERVAL_S, waits=(0.1,) * 10, waiting_sequences=6)
    assert read(QUEUE, now, before) == Reading(2000, 0.0, 6), "two end in a second, and four were before you"


def test_what_others_had_waited_is_the_past_when_nobody_waits():
    assert read(QUEUE, chat(INTERVAL_S, waits=(30.0,)), BEFORE) == Reading(0.0, 0.0, 0)


@pytest.mark.parametrize(("used", "occupancy"), [(10, 0.25), (60, 0.6)])
def test_beside_the_queue_occupancy_is_the_scarcer_of_places_and_blocks(used: int, occupancy: float):
    now = chat(INTERVAL_S, running_sequences=16, admitted_sequences=64, kv_blocks_used=used, kv_blocks=100)
    assert read(QUEUE, now, BEFORE) == Reading(0.0, occupancy, 0)


@pytest.mark.parametrize("target", [QUEUE, RUNNING, KV_USAGE])
def test_a_model_that_has_reported_nothing(target: Target):
    assert read(target, BEFORE, BEFORE, replace(CHAT, name="unheard-of")) is None


def test_a_synchronous_queue_is_the_mean_wait_in_the_frontend():
    # In 5 s 20 answers, together 30 s from arrival to answer, 10 s of that in the queue: 4 requests were in work on average, of 8 places.
    now, before = classifier(INTERVAL_S, 120, 130, 40), classifier(0.0, 100, 100, 30)
    assert read(QUEUE, now, before, CLASSIFIER) == Reading(500, 0.5, 3)


def test_requests_that_name_no_version_are_the_default_versions():
    def unnamed(samples: Samples) -> Samples:
        named = samples.by_name.items()
        return replace(samples, by_name={name: (({**labels, "model_version": "default"}, value),) for name, ((labels, value), *_) in named})

    now, before = unnamed(classifier(INTERVAL_S, 120, 130, 40)), unnamed(classifier(0.0, 100, 100, 30))
    assert read(QUEUE, now, before, replace(CLASSIFIER, is_default=True)) == Reading(500, 0.5, 3)
    assert read(QUEUE, now, before, CLASSIFIER) == Reading(5000, 0.0, 3)


def test_a_synchronous_queue_that_nobody_leaves():
    still = classifier(INTERVAL_S, 100, 100, 30)
    assert read(QUEUE, still, replace(still, scraped_s=0.0), CLASSIFIER) == Reading(5000, 0.0, 3)
    assert read(QUEUE, still, replace(still, scraped_s=0.0), replace(CLASSIFIER, waiting=0)) == Reading(0, 0.0, 0)


def test_synchronous_requests_in_progress_are_counted_by_littles_law():
    now, before = classifier(INTERVAL_S, 120, 160, 40), classifier(0.0, 100, 100, 30)
    assert read(RUNNING, now, before, CLASSIFIER) == Reading(6.0, 1.5, 3), "12 at once on 2 workers"


def test_a_synchronous_model_has_no_kv_cache():
    with pytest.raises(UsageError, match="use --target-queue-ms or --target-running"):
        read(KV_USAGE, BEFORE, BEFORE, CLASSIFIER)
