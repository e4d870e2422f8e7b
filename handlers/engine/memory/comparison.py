"""Compare what was measured with what was planned, and decide what follows: nothing, a smaller engine, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from handlers.engine.memory.footprint import Footprint
from handlers.errors import ConfigError
from handlers.memory_ledger import Interval, MemoryLedger, Part

Verdict = Literal["below", "within", "above"]
Policy = Literal["warn", "shrink", "refuse"]

_FIXED: dict[str, tuple[Part, ...]] = {
    "weights": ("weights",),
    "activations": ("activations", "logits"),
    "context": ("context",),
    "graphs": ("graphs",),
}
"""What is measured at once, and the parts of the plan that it is."""
_SAME_SIZE = 0.1
"""By which share two GPUs may differ: drivers reserve some, and error correction takes its part."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One part, in bytes."""

    part: str
    measured: int
    predicted: Interval

    @property
    def verdict(self) -> Verdict:
        """Where the measured value lies."""
        if self.measured in self.predicted:
            return "within"
        return "above" if self.measured > self.predicted.high else "below"

    def __str__(self) -> str:
        predicted = f"{_megabytes(self.predicted.low)} to {_megabytes(self.predicted.high)}"
        return f"{self.part} {_megabytes(self.measured)} MB, {self.verdict} the predicted {predicted} MB"


def compare(footprint: Footprint, ledger: MemoryLedger) -> tuple[Finding, ...]:
    """Return a finding for each part that the plan has and that does not depend on the others, as the KV cache does."""
    planned = {line.part for line in ledger.lines}
    return tuple(Finding(part, getattr(footprint, part), ledger.total(*lines)) for part, lines in _FIXED.items() if planned & set(lines))


def is_for(ledger: MemoryLedger, kind: str, total_bytes: int) -> bool:
    """Whether a plan is for this kind of device, of about this size.

    By size and not by name, as drivers and planners call the same GPU differently, and memory does not depend on what it is called. On a
    CPU the size sets no limit.
    """
    return ledger.device == kind and (kind == "cpu" or abs(total_bytes / ledger.device_bytes - 1) <= _SAME_SIZE)


@dataclass(frozen=True, slots=True)
class Grant:
    """What an engine gets: bytes of KV cache, and sequences that may run at once."""

    kv_bytes: int
    max_running: int


def apply_policy(policy: Policy, findings: Sequence[Finding], predicted_kv_bytes: float, wanted: Grant) -> Grant:
    """Return ``wanted``, or less of it.

    ``refuse`` raises ConfigError for any part above its interval. ``shrink`` takes what all parts together have more than their upper
    bounds from the planned KV cache, and lets as many of the sequences run as tokens are left (at least one). Less than was planned harms
    nobody.
    """
    above = [finding for finding in findings if finding.verdict == "above"]
    if policy == "refuse" and above:
        raise ConfigError(
            f"more memory was taken than planned: {'; '.join(map(str, above))}. Plan again for this machine (marquee plan), "
            "or set handler.engine.memory_policy: warn"
        )
    excess = sum(finding.measured for finding in findings) - sum(finding.predicted.high for finding in findings)
    if policy != "shrink" or excess <= 0:
        return wanted
    left = min(max(predicted_kv_bytes - excess, 0), wanted.kv_bytes)
    share = min(left / predicted_kv_bytes, 1) if predicted_kv_bytes else 1.0
    return Grant(int(left), max(int(wanted.max_running * share), 1))


def _megabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e6:.1f}"
