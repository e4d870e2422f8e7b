"""What a run came to: tokens a second, times, errors; and what several runs of the same kind came to."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.bench.load import Run


@dataclass(frozen=True)
class Times:
    """Quantiles in milliseconds; NaN when there was nothing to measure."""

    p50_ms: float
    p99_ms: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Times:
        """Summarise durations in seconds (nearest rank)."""
        ranked = sorted(seconds)
        return cls(*(1000 * ranked[min(int(q * len(ranked)), len(ranked) - 1)] if ranked else float("nan") for q in (0.50, 0.99)))


@dataclass(frozen=True)
class Figures:
    """One run of one contestant.

    ``first_text``: from sending a request to its first text. ``gap``: between two arrivals of text in one answer, as its reader sees it; an
    arrival may carry several tokens. ``token``: from first to last text, divided by the tokens between. ``client_cpu_share``: cores that
    the clients took. ``rss_mib``: the contestant's memory afterwards, summed over its processes.
    """

    contestant: str
    streams: int
    num_requests: int
    num_errors: int
    num_output_tokens: int
    wall_s: float
    first_text: Times
    gap: Times
    token: Times
    client_cpu_share: float
    rss_mib: float

    @property
    def tokens_per_s(self) -> float:
        """Output tokens a second, all streams together."""
        return self.num_output_tokens / self.wall_s

    @classmethod
    def of(cls, contestant: str, run: Run, rss_bytes: int = 0) -> Figures:
        """Summarise a run; failed requests count as errors and nowhere else."""
        good = [answer for answer in run.answers if answer.error is None]
        streamed = [answer for answer in good if len(answer.text_times_s) > 1]
        return cls(
            contestant=contestant,
            streams=run.streams,
            num_requests=len(run.answers),
            num_errors=len(run.answers) - len(good),
            num_output_tokens=sum(answer.num_tokens for answer in good),
            wall_s=run.wall_s,
            first_text=Times.of(answer.text_times_s[0] - answer.started_s for answer in good if answer.text_times_s),
            gap=Times.of(later - earlier for answer in streamed for earlier, later in pairwise(answer.text_times_s)),
            token=Times.of((answer.text_times_s[-1] - answer.text_times_s[0]) / (answer.num_tokens - 1) for answer in streamed),
            client_cpu_share=run.client_cpu_s / run.wall_s,
            rss_mib=rss_bytes / 2**20,
        )


@dataclass(frozen=True)
class Spread:
    """A figure over several repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise the repeats' values."""
        return cls(statistics.median(values), min(values), max(values))

    def show(self, digits: int = 0) -> str:
        """Return ``median (low–high)``, the one value if there is one, or a dash where there is nothing."""
        if self.median != self.median:
            return "–"
        if self.low == self.high:
            return f"{self.median:.{digits}f}"
        return f"{self.median:.{digits}f} ({self.low:.{digits}f}–{self.high:.{digits}f})"


@dataclass(frozen=True)
class Summary:
    """All repeats of one contestant at one number of streams; ``lead``: the reference's tokens/s divided by its own, repeat by repeat."""

    contestant: str
    streams: int
    repeats: int
    num_errors: int
    tokens_per_s: Spread
    first_text_p50_ms: Spread
    first_text_p99_ms: Spread
    gap_p50_ms: Spread
    gap_p99_ms: Spread
    token_p50_ms: Spread
    client_cpu_share: Spread
    rss_mib: Spread
    lead: Spread


def summarise(figures: Sequence[Figures], reference: str) -> list[Summary]:
    """Summarise repeats, in order of streams; each is compared with the ``reference``'s beside it, which runs wherever anybody does."""
    groups: dict[tuple[int, str], list[Figures]] = defaultdict(list)
    for each in figures:
        groups[each.streams, each.contestant].append(each)
    return [_summary(group, groups[streams, reference]) for (streams, _), group in sorted(groups.items(), key=lambda item: item[0][0])]


def _summary(group: list[Figures], reference: list[Figures]) -> Summary:
    return Summary(
        contestant=group[0].contestant,
        streams=group[0].streams,
        repeats=len(group),
        num_errors=sum(each.num_errors for each in group),
        tokens_per_s=Spread.of([each.tokens_per_s for each in group]),
        first_text_p50_ms=Spread.of([each.first_text.p50_ms for each in group]),
        first_text_p99_ms=Spread.of([each.first_text.p99_ms for each in group]),
        gap_p50_ms=Spread.of([each.gap.p50_ms for each in group]),
        gap_p99_ms=Spread.of([each.gap.p99_ms for each in group]),
        token_p50_ms=Spread.of([each.token.p50_ms for each in group]),
        client_cpu_share=Spread.of([each.client_cpu_share for each in group]),
        rss_mib=Spread.of([each.rss_mib for each in group]),
        lead=Spread.of([_ratio(ours.tokens_per_s, each.tokens_per_s) for ours, each in zip(reference, group, strict=True)]),
    )


def _ratio(ours: float, others: float) -> float:
    return ours / others if others else float("nan")
