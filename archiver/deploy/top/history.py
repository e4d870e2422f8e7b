"""The readings of the last minute, from which everything that is shown is computed."""

from __future__ import annotations

from dataclasses import dataclass

from archiver.deploy.scrape import Histogram, Samples

_KEPT_S = 60.0
_RATE_S = 5.0


@dataclass(frozen=True)
class History:
    """Readings, the oldest first. Rates are those of the last five seconds, quantiles those of all readings."""

    readings: tuple[Samples, ...] = ()

    def add(self, reading: Samples) -> History:
        """Return it with one more reading, and without those that are too old by then; the one before always stays, for the rates."""
        kept = tuple(old for old in self.readings if reading.scraped_s - old.scraped_s <= _KEPT_S)
        return History((*(kept or self.readings[-1:]), reading))

    @property
    def latest(self) -> Samples:
        """The newest reading; there must be one."""
        return self.readings[-1]

    def value(self, name: str, **labels: str) -> float | None:
        """Return a gauge's latest value; None if nobody reports it."""
        return self.latest.value(name, **labels)

    def per_s(self, name: str, **labels: str) -> float | None:
        """Return by how much a counter grows in a second; None if nobody counts, or after one reading only."""
        *earlier, latest = self.readings
        if not earlier or latest.value(name, **labels) is None:
            return None
        before = next((old for old in earlier if latest.scraped_s - old.scraped_s <= _RATE_S), earlier[-1])
        return latest.increase(before, name, **labels) / (latest.scraped_s - before.scraped_s)

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """Return a quantile of what was observed lately; if that is nothing, of all that was ever observed."""
        now = self.latest.histogram(name, **labels)
        if now is None:
            return None
        recent = now.since(self.readings[0].histogram(name, **labels) if len(self.readings) > 1 else None)
        found: Histogram = recent if recent.count else now
        return found.quantile(share)
