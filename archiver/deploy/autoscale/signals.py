"""What a model's load is, by two readings of the server's metrics: the queue, the sequences a replica has, or the KV cache.

Of a continuous model the metrics are those of its handler, of a synchronous one TorchServe's own, by the names that
``config/metrics.yaml`` has them under. TorchServe counts a request when it is answered: its latency from arrival to answer, and the
part of that it spent in the frontend's queue. By Little's law, what is counted in a second is how many were there on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from archiver.deploy.scrape import DEFAULT_VERSION, Labels, Samples
from archiver.errors import UsageError

SignalName = Literal["queue", "running", "kv usage"]


@dataclass(frozen=True)
class Target:
    """What is to be kept: a queue of ``value`` milliseconds, so many sequences a replica, or such a share (0 to 1) of the KV cache."""

    signal: SignalName
    value: float


@dataclass(frozen=True)
class Served:
    """A model with what serves it. ``batch_size``: how many requests a worker takes at once; None for a continuous model."""

    name: str
    version: str
    replicas: int
    batch_size: int | None = None
    waiting: int = 0
    """In the frontend's queue, of a synchronous model."""
    is_default: bool = False
    """Whether requests come to it that name no version."""


@dataclass(frozen=True)
class Reading:
    """``measured`` in the target's unit; ``occupancy``: the share of the replicas' capacity that is used; ``waiting`` requests."""

    measured: float
    occupancy: float
    waiting: int


def read_signal(target: Target, model: Served, now: Samples, before: Samples) -> Reading | None:
    """Return the model's load between two readings, at least two seconds apart; None if its handler has not reported anything yet.

    Raises UsageError for a target that the model has no metrics for.
    """
    if model.batch_size is None:
        return _read_continuous(target, model, now, before)
    if target.signal == "kv usage":
        raise UsageError(f"{model.name} is a synchronous model and reports no KV cache: use --target-queue-ms or --target-running")
    return _read_synchronous(target, model, model.batch_size, now, before)


def _read_continuous(target: Target, model: Served, now: Samples, before: Samples) -> Reading | None:
    labels = {"ModelName": model.name, "ModelVersion": model.version}

    def gauge(name: str) -> float:
        return now.value(name, **labels) or 0.0

    if now.value("marquee_running_sequences", **labels) is None:
        return None
    running, waiting = gauge("marquee_running_sequences"), gauge("marquee_waiting_sequences")
    used = gauge("marquee_kv_blocks_used") / max(gauge("marquee_kv_blocks"), 1.0)
    if target.signal == "running":
        return _linear((running + waiting) / model.replicas, target, waiting)
    if target.signal == "kv usage":
        return _linear(used, target, waiting)
    occupancy = max(running / max(gauge("marquee_admitted_sequences"), 1.0), used)
    return Reading(1000 * _queue_s(labels, now, before), occupancy, int(waiting))


def _queue_s(labels: Labels, now: Samples, before: Samples) -> float:
    """Return how long sequences wait: those that ended lately have waited, or those that wait now have to expect.

    Handlers report a wait when the sequence has ended. If nobody waits any more, what others have waited is the past.
    """
    waited = now.histogram("marquee_queue_seconds", **labels)
    if waited is not None:
        waited = waited.since(before.histogram("marquee_queue_seconds", **labels))
    num_ended, mean_s = (waited.count, waited.mean or 0.0) if waited else (0.0, 0.0)
    least, most = sorted(samples.value("marquee_waiting_sequences", **labels) or 0.0 for samples in (now, before))
    expected_s = least * (now.scraped_s - before.scraped_s) / max(num_ended, 1.0)
    return max(mean_s, expected_s) if most else 0.0


def _read_synchronous(target: Target, model: Served, batch_size: int, now: Samples, before: Samples) -> Reading:
    def grown(name: str) -> float:
        versions = [model.version, *([DEFAULT_VERSION] if model.is_default else [])]
        return sum(now.increase(before, name, model_name=model.name, model_version=version) for version in versions)

    elapsed_s = now.scraped_s - before.scraped_s
    present_s, queued_s = grown("ts_inference_latency_microseconds") / 1e6, grown("ts_queue_latency_microseconds") / 1e6
    if target.signal == "running":
        return _linear(present_s / elapsed_s / model.replicas, target, model.waiting)
    num_answered = grown("ts_inference_requests_total")
    queue_s = queued_s / num_answered if num_answered else elapsed_s * bool(model.waiting)  # at least, if none got an answer
    occupancy = max(present_s - queued_s, 0.0) / elapsed_s / (model.replicas * batch_size)
    return Reading(1000 * queue_s, occupancy, model.waiting)


def _linear(measured: float, target: Target, waiting: float) -> Reading:
    """Of a load that more replicas share, the target is the capacity."""
    return Reading(measured, measured / target.value, int(waiting))
