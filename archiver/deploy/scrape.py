"""Read a server's metrics once, and say what grew between two readings."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from operator import sub

import httpx
from prometheus_client.parser import text_string_to_metric_families

from archiver.errors import ArchiverError

METRICS_URL = "http://127.0.0.1:8082/metrics"
"""Where TorchServe has its metrics unless ``metrics_address`` says otherwise."""

DEFAULT_VERSION = "default"
"""What TorchServe's own counters take for the version of requests that name none."""

Labels = Mapping[str, str]


class MetricsUnavailable(ArchiverError):
    """Nobody answers, or what answers has no metrics."""


@dataclass(frozen=True)
class Histogram:
    """Observations counted in buckets: ``counts[i]`` of them were at most ``bounds[i]``, the last bound being infinite; ``sum`` of all."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    sum: float

    @property
    def count(self) -> float:
        """How many observations there are."""
        return self.counts[-1]

    @property
    def mean(self) -> float | None:
        """The mean observation; None without any."""
        return self.sum / self.count if self.count else None

    def since(self, earlier: Histogram | None) -> Histogram:
        """Return what was observed after ``earlier``; everything if that is None or of a server that has been restarted meanwhile."""
        if earlier is None or earlier.bounds != self.bounds:
            return self
        counts = tuple(map(sub, self.counts, earlier.counts))
        return self if min(counts) < 0 else Histogram(self.bounds, counts, self.sum - earlier.sum)

    def quantile(self, share: float) -> float | None:
        """Return the value that a ``share`` (0 to 1) of the observations does not exceed; None without any.

        As Prometheus' ``histogram_quantile``: linear between the bounds of its bucket, the first of which begins at 0; the largest finite
        bound for one in the last, infinite bucket.
        """
        if not self.count:
            return None
        rank = share * self.count
        buckets = pairwise([(0.0, 0.0), *zip(self.bounds, self.counts, strict=True)])
        (low, below), (high, reached) = next(bucket for bucket in buckets if bucket[1][1] >= rank and bucket[1][1] > bucket[0][1])
        return low if math.isinf(high) else low + (high - low) * (rank - below) / (reached - below)


@dataclass(frozen=True)
class Samples:
    """One reading, at ``scraped_s`` on the monotonic clock: by name, each sample's labels and value.

    Wherever labels are asked for, the samples that have them count, whatever else they have. Counters go by the names that the server
    gives them, with ``_total`` or without.
    """

    by_name: Mapping[str, tuple[tuple[Labels, float], ...]]
    scraped_s: float = field(default_factory=time.monotonic)

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum over the samples with these labels; None if there is none, as of a counter before its first increment."""
        found = [value for _, value in self._matching(name, labels)]
        return sum(found) if found else None

    def values(self, name: str, by: str, **labels: str) -> dict[str, float]:
        """Return the sums for each value of the label ``by``."""
        sums: dict[str, float] = {}
        for found, value in self._matching(name, labels):
            if by in found:
                sums[found[by]] = sums.get(found[by], 0.0) + value
        return sums

    def increase(self, earlier: Samples, name: str, **labels: str) -> float:
        """Return by how much a counter has grown; after a restart of the server, by all of it."""
        now, then = self.value(name, **labels) or 0.0, earlier.value(name, **labels) or 0.0
        return now - then if now >= then else now

    def histogram(self, name: str, **labels: str) -> Histogram | None:
        """Return the sum of the histograms with these labels; None before the first observation."""
        buckets = {float(bound): count for bound, count in self.values(f"{name}_bucket", "le", **labels).items()}
        total = self.value(f"{name}_sum", **labels)
        if not buckets or total is None:
            return None
        bounds = tuple(sorted(buckets))
        return Histogram(bounds, tuple(buckets[bound] for bound in bounds), total)

    def _matching(self, name: str, labels: Labels) -> Iterator[tuple[Labels, float]]:
        # Prometheus' parser puts `_total` behind the name of every counter that lacks it.
        samples = self.by_name.get(name) or self.by_name.get(f"{name}_total", ())
        return ((found, value) for found, value in samples if labels.items() <= found.items())


def scrape(url: str = METRICS_URL, *, timeout_s: float = 10.0) -> Samples:
    """Read the metrics at ``url``. Raises MetricsUnavailable that says what to do."""
    try:
        # A proxy from the environment has no business between two processes of one machine.
        response = httpx.get(url, timeout=timeout_s, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MetricsUnavailable(f"no metrics at {url} ({error}): is the server running, and is this its metrics_address?") from None
    if response.status_code != httpx.codes.OK:
        raise MetricsUnavailable(f"no metrics at {url} (HTTP {response.status_code}): a server has them with metrics_mode=prometheus")
    try:
        return parse_samples(response.text)
    except ValueError:
        raise MetricsUnavailable(f"what {url} answers is not metrics in Prometheus' text format: is it the metrics_address?") from None


def parse_samples(text: str) -> Samples:
    """Return what a server's answer holds; raises ValueError for what is not Prometheus' text format or holds nothing."""
    families = list(text_string_to_metric_families(text))
    if not families:
        raise ValueError("no metrics")
    by_name: dict[str, tuple[tuple[Labels, float], ...]] = {}
    for sample in (sample for family in families for sample in family.samples):
        by_name[sample.name] = (*by_name.get(sample.name, ()), (sample.labels, sample.value))
    return Samples(by_name)
