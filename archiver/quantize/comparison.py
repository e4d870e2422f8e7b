"""Several recipes on one model side by side, and which of them to take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from archiver.quantize.receipt import Receipt
from archiver.quantize.speed import WORKLOAD, DeviceKind, Speeds
from handlers.integrity import installed_versions

SOURCE = "source"
DEFAULT_BUDGET: Mapping[str, float] = {"kl": 0.1, "ppl": 1.05}
"""What may be lost if the user does not say: about what 4-bit formats are said to lose of large models (95 to 97% of the quality kept)."""

_AS_FAST = 0.95  # of the best speed: repeats of one measurement differ by that much
_USUAL = {"CPU": "GGUF", "GPU": "AWQ", "GPU with FP8": "FP8"}


@dataclass(frozen=True)
class Row:
    """One recipe's result, or the plain source. ``tokens_per_s`` by number of streams; ``problem`` is why a recipe has no result.

    Without a ``problem`` a row has a ``directory``, and unless it is the source a ``receipt`` with its quality.
    """

    name: str
    directory: Path | None = None
    weight_bytes: int = 0
    receipt: Receipt | None = None
    exceeded: tuple[str, ...] = ()
    tokens_per_s: Speeds = field(default_factory=dict)
    problem: str | None = None

    @property
    def is_eligible(self) -> bool:
        """Whether it can be recommended."""
        return self.problem is None and not self.exceeded and bool(self.tokens_per_s)

    @property
    def top_speed(self) -> float:
        """Tokens a second at the largest number of streams."""
        return self.tokens_per_s[max(self.tokens_per_s)].median


@dataclass(frozen=True)
class Recommendation:
    """The row to take (None: there is none), and why, in a sentence."""

    name: str | None
    reason: str


@dataclass(frozen=True)
class Comparison:
    """``rows``: the source, then the recipes. ``machine`` is what speeds were measured on, ``device`` its kind."""

    model: str
    machine: str
    device: DeviceKind
    budget: Mapping[str, float]
    rows: tuple[Row, ...]

    @property
    def source(self) -> Row:
        """The row of the plain model."""
        return self.rows[0]

    @property
    def perplexity_before(self) -> float | None:
        """The source's, which each receipt has."""
        qualities = [row.receipt.quality for row in self.rows if row.receipt and row.receipt.quality]
        return qualities[0].perplexity_before if qualities else None

    @property
    def recommendation(self) -> Recommendation:
        """The fastest row at the most streams that keeps to the budget; of those that are about as fast the smallest."""
        eligible = [row for row in self.rows if row.is_eligible]
        if not eligible:
            return Recommendation(None, "nothing could be measured: see what each row says")
        best = max(row.top_speed for row in eligible)
        chosen = min((row for row in eligible if row.top_speed >= _AS_FAST * best), key=lambda row: row.weight_bytes)
        return Recommendation(chosen.name, self._explain(chosen, len(eligible)))

    def _explain(self, chosen: Row, num_eligible: int) -> str:
        limits = ", ".join(f"{name}={limit:g}" for name, limit in self.budget.items())
        streams = max(chosen.tokens_per_s)
        rule = f"Of {num_eligible} rows within the budget ({limits}) it is the fastest at {streams} streams, or as fast and smaller"
        usual = f"the usual choice for a {self.device} is {_USUAL[self.device]}"
        if chosen is self.source:
            return f"{rule}: no recipe makes this model faster on this machine; {usual}."
        faster, smaller = chosen.top_speed / self.source.top_speed, self.source.weight_bytes / chosen.weight_bytes
        return f"{rule}: {faster:.2g}x the source's speed, {smaller:.2g}x smaller; {usual}."

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as for JSON."""
        recommendation = self.recommendation
        return {
            "model": self.model,
            "machine": self.machine,
            "device": self.device,
            "versions": installed_versions(),
            "workload": WORKLOAD,
            "budget": dict(self.budget),
            "recommended": recommendation.name,
            "reason": recommendation.reason,
            "rows": [self._row_to_dict(row) for row in self.rows],
        }

    def _row_to_dict(self, row: Row) -> dict[str, Any]:
        receipt = row.receipt.to_dict() if row.receipt else {}
        return {
            "name": row.name,
            "problem": row.problem,
            "directory": str(row.directory) if row.directory else None,
            "weight_bytes": row.weight_bytes,
            "ratio": self.source.weight_bytes / row.weight_bytes if row.weight_bytes else None,
            "tokens_per_s": {str(streams): asdict(speed) for streams, speed in row.tokens_per_s.items()},
            "seconds": receipt.get("seconds"),
            "quality": receipt.get("quality"),
            "exceeded": list(row.exceeded),
        }
