"""The statistics of an engine as metrics, once a second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict

from handlers.memory_ledger import MemoryLedger
from handlers.telemetry import catalogue as metrics
from handlers.telemetry.metric import Metric, Report

logger = logging.getLogger(__name__)

_EVERY_S = 1.0
_COUNTERS = {
    "steps": metrics.BATCHES,
    "sampled_sequences": metrics.BATCHED_SEQUENCES,
    "drafted_tokens": metrics.DRAFTED,
    "accepted_tokens": metrics.ACCEPTED,
    "preemptions": metrics.PREEMPTIONS,
    "out_of_memory": metrics.OUT_OF_MEMORY,
    "restarts": metrics.RESTARTS,
}
"""By the name of the statistic, which is a total since the engines' start."""
_GAUGES = {
    "running": metrics.RUNNING,
    "waiting": metrics.WAITING,
    "max_running": metrics.ADMITTED,
    "engines": metrics.ENGINES,
    "tokens_per_s": metrics.TOKEN_RATE,
    "step_ms_p50": metrics.STEP_P50,
    "step_ms_p99": metrics.STEP_P99,
    "blocks_used": metrics.KV_USED,
    "blocks_total": metrics.KV_BLOCKS,
    "weight_bytes": metrics.WEIGHT_BYTES,
    "kv_bytes": metrics.KV_BYTES,
    "activation_bytes": metrics.ACTIVATION_BYTES,
    "context_bytes": metrics.CONTEXT_BYTES,
    "graph_bytes": metrics.GRAPH_BYTES,
}
"""By the name of the statistic."""


class EngineGauges:
    """Reports what ``stats`` returns, the fields of an engine's statistics by name, whenever something has changed.

    ``ledger`` is what was planned of the memory of one engine: beside what all of them take, it counts once for each. Reports come from a
    thread of its own, because without requests the frontend does not call the worker, and what was reported last would stand for ever.
    """

    def __init__(self, report: Report, stats: Callable[[], Mapping[str, float]], ledger: MemoryLedger | None = None) -> None:
        self._report = report
        self._stats = stats
        self._ledger = ledger
        self._totals: dict[str, float] = {}
        self._reported: Mapping[str, float] = {}
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="gauges", daemon=True)

    def start(self) -> None:
        """Report now, and once a second from now on."""
        self._thread.start()

    def close(self) -> None:
        """Stop reporting. Safe to call again."""
        self._is_closed.set()

    def report(self) -> None:
        """Report, unless nothing has changed."""
        stats = self._stats()
        if stats == self._reported:
            return
        for name, metric in _GAUGES.items():
            self._report(metric, stats[name], {})
        self._report(metrics.KV_USAGE, stats["blocks_used"] / max(stats["blocks_total"], 1), {})
        self._report(metrics.HIT_RATIO, stats["cached_tokens"] / max(stats["queried_tokens"], 1), {})
        self._report(metrics.ACCEPTANCE, stats["accepted_tokens"] / max(stats["drafted_tokens"], 1), {})
        for name, metric in _COUNTERS.items():
            self._count(metric, name, stats[name])
        for line in self._ledger.lines if self._ledger else ():
            for bound, predicted in asdict(line.bytes).items():
                self._report(metrics.PREDICTED_BYTES, predicted * stats["engines"], {"part": line.part, "bound": bound})
        self._reported = stats

    def _count(self, metric: Metric, name: str, total: float) -> None:
        """Report by how much a total has grown: at first by 0 if need be, for only what is there can be seen to grow."""
        new = total - self._totals.get(name, 0.0)
        if new or name not in self._totals:
            self._report(metric, new if new >= 0 else total, {})  # Of an engine that was restarted the count begins again.
        self._totals[name] = total

    def _serve(self) -> None:
        while True:
            try:
                self.report()
            except Exception:
                logger.exception("the engine's gauges could not be reported")
            if self._is_closed.wait(_EVERY_S):
                return
