"""Limits on the quality that quantizing may cost, ``kl=0.05,ppl=1.05,top1=0.95``, and which of them a result exceeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from archiver.errors import UsageError
from archiver.quantize.receipt import Quality


@dataclass(frozen=True)
class _Limit:
    """What a name in a budget limits: from above, or, of a share that should be high, ``at_least``. ``example`` is a usual limit."""

    meaning: str
    measured: Callable[[Quality], float]
    example: float
    at_least: bool = False

    def holds(self, value: float, limit: float) -> bool:
        """Whether ``value`` keeps to the limit; NaN, of which no comparison is true, never does."""
        return value >= limit if self.at_least else value <= limit


_LIMITS = {
    "kl": _Limit("the mean KL divergence in nats", lambda quality: quality.kl, 0.05),
    "kl_p99": _Limit("the 99th percentile of the KL divergence in nats", lambda quality: quality.kl_p99, 0.5),
    "ppl": _Limit("perplexity as a multiple of the source's", lambda quality: quality.perplexity_ratio, 1.05),
    "top1": _Limit("the share of positions with the same likeliest token", lambda quality: quality.top1_agreement, 0.9, at_least=True),
    "layer": _Limit(
        "the largest relative error of a layer's weight, large by nature for AWQ and SmoothQuant", lambda quality: quality.worst_error, 0.2
    ),
}


def parse_budget(text: str | None) -> dict[str, float]:
    """Read limits by name; None and the empty text are no limits. Raises UsageError that names the valid names."""
    budget: dict[str, float] = {}
    for part in (text or "").split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        if not part.strip():
            continue
        if name not in _LIMITS:
            raise UsageError(f"--budget has no limit called {name!r}; there are {_names()}")
        if name in budget:
            raise UsageError(f"--budget limits {name} twice")
        budget[name] = _number(name, number)
    return budget


def exceeded(budget: Mapping[str, float], quality: Quality) -> tuple[str, ...]:
    """Return a sentence for every limit that ``quality`` exceeds; logits that are no numbers exceed even an empty budget."""
    return tuple(_complaints(budget, quality))


def _complaints(budget: Mapping[str, float], quality: Quality) -> Iterator[str]:
    if quality.num_broken:
        yield f"the quantized model's logits are not finite numbers at {quality.num_broken:,} of {quality.num_tokens:,} positions"
    for name, limit in budget.items():
        rule = _LIMITS[name]
        value = rule.measured(quality)
        if not rule.holds(value, limit):
            bound = "at least" if rule.at_least else "at most"
            yield f"{name}: {rule.meaning} is {value:.4g}, and the budget asks for {bound} {limit:g}"


def _names() -> str:
    return ", ".join(f"{name} ({limit.meaning})" for name, limit in _LIMITS.items())


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"--budget: {name} needs a number from 0 up, as in {name}={_LIMITS[name].example:g}; got {text!r}")
    return value
