"""What a metric is, and what takes its observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: ``meaning`` is for the documentation, ``labels`` are those beyond ``ModelName`` and ``ModelVersion``, which all have.

    ``WorkerName`` is for what each of several workers has of its own; whoever takes the observation adds these three.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: Literal["count", "s", "ms", "B"]
    meaning: str
    labels: tuple[str, ...] = ()


Report = Callable[[Metric, float, Mapping[str, str]], None]
"""Take a metric, an observation and its labels."""
