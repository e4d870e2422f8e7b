"""What a model was predicted to take of one device's memory, part by part: written into an archive, compared with what it really takes.

``plan.json`` at the top of an archive::

    {"schema": 1, "ledger": {"device": "cuda", "device_name": "NVIDIA H100 SXM", "device_bytes": 85520809984,
     "lines": [{"part": "weights", "formula": "…", "bytes": {"low": 16060522496, "expected": 16060522496, "high": 16060522496}}]}, …}

What else stands in it is for people and for the planner.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from handlers.errors import ConfigError

PLAN_FILE = "plan.json"
SCHEMA = 1

Part = Literal["weights", "kv_cache", "activations", "logits", "context", "graphs", "reserve"]
"""``activations`` of the largest step, ``context`` of the driver and its libraries, ``graphs`` that were captured, ``reserve`` against
fragmentation."""

_STRICT = ConfigDict(extra="ignore", allow_inf_nan=False)


@dataclass(frozen=True, config=_STRICT)
class Interval:
    """An estimate: ``expected``, and between ``low`` and ``high`` unless a formula is wrong. Of bytes, where nothing else is said."""

    low: float
    expected: float
    high: float

    @classmethod
    def exact(cls, value: float) -> Interval:
        """Return an estimate that is none."""
        return cls(value, value, value)

    @classmethod
    def within(cls, expected: float, below: float, above: float) -> Interval:
        """Return an estimate by shares of what is expected: ``within(100, 0.1, 0.5)`` is 90 to 150."""
        return cls(expected * (1 - below), expected, expected * (1 + above))

    def __add__(self, other: Interval) -> Interval:
        return Interval(self.low + other.low, self.expected + other.expected, self.high + other.high)

    def __mul__(self, factor: float) -> Interval:
        return Interval(self.low * factor, self.expected * factor, self.high * factor)

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True, config=_STRICT)
class LedgerLine:
    """One part, and how its size comes about, for a person."""

    part: Part
    formula: str
    bytes: Interval


@dataclass(frozen=True, config=_STRICT)
class MemoryLedger:
    """The parts on each of the devices that a model runs on; all of these are alike. ``device_bytes``: what one has in all."""

    device: Literal["cuda", "cpu"]
    device_name: str
    device_bytes: Annotated[int, Field(gt=0)]
    lines: tuple[LedgerLine, ...]

    def total(self, *parts: Part) -> Interval:
        """Return the sum of the named parts, or of all."""
        return sum_intervals(line.bytes for line in self.lines if line.part in parts or not parts)


def sum_intervals(intervals: Iterable[Interval]) -> Interval:
    """Return the sum; of ends with ends, as the errors of one model tend the same way."""
    return sum(intervals, start=Interval.exact(0))


def read_memory_ledger(model_dir: Path) -> MemoryLedger | None:
    """Return the prediction that travels in a model directory; None where there is none. Raises ConfigError for a damaged one."""
    file = model_dir / PLAN_FILE
    try:
        content = json.loads(file.read_bytes())
        return TypeAdapter(MemoryLedger).validate_python(content["ledger"]) if content["schema"] == SCHEMA else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ConfigError(f"{PLAN_FILE} in the archive cannot be read ({type(error).__name__}); build the archive again") from error
