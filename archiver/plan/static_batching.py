"""TorchServe's own dynamic batching: the batch size and delay that keep up with a rate, and keep to a latency."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

_MOST_BUSY = 0.85
"""Above this share of the time a queue grows faster than any estimate of it."""
_LARGEST_BATCH = 128


@dataclass(frozen=True)
class StaticBatching:
    """``batchSize`` and ``maxBatchDelay`` of one worker, and what to expect of them: the mean batch, and seconds from arrival to answer."""

    batch_size: int
    max_batch_delay_ms: int
    mean_batch: float
    utilization: float
    latency_s: float


def mean_batch(batch_size: int, rate: float, delay_s: float) -> float:
    """Return how many requests a batch has on average: the first of it, and those that come during the delay."""
    return min(batch_size, 1 + rate * delay_s)


def tune(
    rate: float, service_s: Callable[[int], float], latency_s: float | None = None, largest: int = _LARGEST_BATCH
) -> StaticBatching | None:
    """Return the smallest batch that one worker can keep up with ``rate`` requests a second with.

    None if none of at most ``largest`` can, in ``latency_s``.

    ``service_s`` is how long a batch of a size takes. A batch that is being worked on delays the next, whose requests gather meanwhile: in
    the mean they wait for half of the delay, and for the worker as in an M/D/1 queue of batches.
    """
    for batch_size in range(1, min(largest, _LARGEST_BATCH) + 1):
        delay_s = (batch_size - 1) / rate
        found = _expect(batch_size, delay_s, rate, service_s)
        if found.utilization <= _MOST_BUSY and (latency_s is None or found.latency_s <= latency_s):
            return found
    return None


def _expect(batch_size: int, delay_s: float, rate: float, service_s: Callable[[int], float]) -> StaticBatching:
    batch = mean_batch(batch_size, rate, delay_s)
    service = service_s(batch_size)
    utilization = rate * service / batch
    waiting = service * utilization / (2 * (1 - utilization)) if utilization < 1 else float("inf")
    return StaticBatching(batch_size, round(1000 * delay_s), batch, utilization, delay_s / 2 + waiting + service)
