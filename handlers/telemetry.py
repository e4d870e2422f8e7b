"""The metrics that a worker reports: one observation a finished request, the engine's gauges once a second, nothing a token.

TorchServe passes no histogram buckets, so durations are in seconds, which fit the Prometheus client's default buckets.
``config/metrics.yaml`` declares the same names; a test compares the two.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from handlers.memory_ledger import MemoryLedger
from handlers.requests import Request


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name, type and unit; ``labels`` beyond ``ModelName``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    labels: tuple[str, ...] = ()


REQUESTS = Metric("marquee_requests_total", "counter", "count", ("status",))
REQUEST_TIME = Metric("marquee_request_seconds", "histogram", "s")
PART_TIME = Metric("marquee_request_part_seconds", "histogram", "s", ("part",))
QUEUE_TIME = Metric("marquee_queue_seconds", "histogram", "s")
FIRST_TOKEN_TIME = Metric("marquee_time_to_first_token_seconds", "histogram", "s")
TOKEN_TIME = Metric("marquee_inter_token_seconds", "histogram", "s")
PROMPT_TOKENS = Metric("marquee_prompt_tokens_total", "counter", "count")
CACHED_TOKENS = Metric("marquee_cached_prompt_tokens_total", "counter", "count")
GENERATED_TOKENS = Metric("marquee_generated_tokens_total", "counter", "count")
WASTED_TOKENS = Metric("marquee_tokens_after_disconnect_total", "counter", "count")
REQUEST_METRICS = (
    *(REQUESTS, REQUEST_TIME, PART_TIME, QUEUE_TIME, FIRST_TOKEN_TIME, TOKEN_TIME),
    *(PROMPT_TOKENS, CACHED_TOKENS, GENERATED_TOKENS, WASTED_TOKENS),
)

PREEMPTIONS = Metric("marquee_preemptions_total", "counter", "count")
OUT_OF_MEMORY = Metric("marquee_out_of_memory_total", "counter", "count")
ENGINE_COUNTERS = {"preemptions": PREEMPTIONS, "out_of_memory": OUT_OF_MEMORY}
"""By the name of the statistic, which is a total since the engines' start."""
HIT_RATIO = Metric("marquee_prefix_hit_ratio", "gauge", "count")
ENGINE_GAUGES = {
    "running": Metric("marquee_running_sequences", "gauge", "count"),
    "waiting": Metric("marquee_waiting_sequences", "gauge", "count"),
    "max_running": Metric("marquee_admitted_sequences", "gauge", "count"),
    "blocks_used": Metric("marquee_kv_blocks_used", "gauge", "count"),
    "blocks_total": Metric("marquee_kv_blocks", "gauge", "count"),
    "step_ms_p50": Metric("marquee_step_p50_milliseconds", "gauge", "ms"),
    "step_ms_p99": Metric("marquee_step_p99_milliseconds", "gauge", "ms"),
    "weight_bytes": Metric("marquee_weight_bytes", "gauge", "B"),
    "kv_bytes": Metric("marquee_kv_cache_bytes", "gauge", "B"),
    "activation_bytes": Metric("marquee_activation_bytes", "gauge", "B"),
    "context_bytes": Metric("marquee_context_bytes", "gauge", "B"),
    "graph_bytes": Metric("marquee_graph_bytes", "gauge", "B"),
    "tokens_per_s": Metric("marquee_generated_tokens_per_second", "gauge", "count"),
}
"""By the name of the statistic."""
PREDICTED_MEMORY = Metric("marquee_predicted_memory_bytes", "gauge", "B", ("part", "bound"))
ENGINE_METRICS = (*ENGINE_COUNTERS.values(), HIT_RATIO, *ENGINE_GAUGES.values(), PREDICTED_MEMORY)

METRICS = (*REQUEST_METRICS, *ENGINE_METRICS)

logger = logging.getLogger(__name__)

Report = Callable[[Metric, float, Mapping[str, str]], None]
"""Take a metric, an observation and its labels."""


def observe_request(request: Request, report: Report) -> None:
    """Report everything about a choice whose fate is known. ``status`` is ``ok``, ``cancelled`` or the HTTP status of its error.

    A client's request is counted on its first choice, and a prompt on the first choice of its own.
    """
    if request.index == 0:
        report(REQUESTS, 1, {"status": _status(request)})
    if request.is_first_choice:
        report(PROMPT_TOKENS, len(request.prompt_token_ids), {})
        report(CACHED_TOKENS, request.num_cached_tokens, {})
    report(GENERATED_TOKENS, request.num_generated_tokens, {})
    if request.finish_reason == "cancelled":
        report(WASTED_TOKENS, request.num_wasted_tokens, {})
    times = request.times
    if "queue" in times.parts:
        report(QUEUE_TIME, times.parts["queue"], {})
    if request.error is not None or times.first_token_s is None:
        return
    report(FIRST_TOKEN_TIME, times.first_token_s, {})
    if request.num_generated_tokens > 1:
        report(TOKEN_TIME, times.generation_s / (request.num_generated_tokens - 1), {})
    if request.finish_reason == "cancelled":
        return
    report(REQUEST_TIME, times.total_s, {})
    for part, seconds in times.parts.items():
        report(PART_TIME, seconds, {"part": part})


class EngineGauges:
    """Reports the engine's statistics, and remembers what it needs to tell by how much a total has grown.

    ``ledger`` is what was planned of the memory of one engine: beside what all of them take, it counts once for each.
    """

    def __init__(self, report: Report, ledger: MemoryLedger | None = None) -> None:
        self._report = report
        self._ledger = ledger
        self._totals = dict.fromkeys(ENGINE_COUNTERS, 0.0)

    def report(self, stats: Mapping[str, float]) -> None:
        """Report a snapshot: the fields of the engine's statistics by name."""
        for name, metric in ENGINE_GAUGES.items():
            self._report(metric, stats[name], {})
        self._report(HIT_RATIO, stats["cached_tokens"] / max(stats["queried_tokens"], 1), {})
        for name, metric in ENGINE_COUNTERS.items():
            self._count(metric, name, stats[name])
        for line in self._ledger.lines if self._ledger else ():
            for bound, predicted in asdict(line.bytes).items():
                self._report(PREDICTED_MEMORY, predicted * stats["engines"], {"part": line.part, "bound": bound})

    def _count(self, metric: Metric, name: str, total: float) -> None:
        new = total - self._totals[name]
        self._totals[name] = total
        if new:  # Of an engine that was restarted the count begins again.
            self._report(metric, new if new > 0 else total, {})


def _status(request: Request) -> str:
    if request.error is not None:
        return str(request.error.status)
    return "cancelled" if request.finish_reason == "cancelled" else "ok"


def report_loading(activity: str) -> None:
    """Say in the worker's log what it is doing while it loads; ``marquee serve`` shows it to whoever waits."""
    logger.info("MARQUEE LOADING: %s", activity)
