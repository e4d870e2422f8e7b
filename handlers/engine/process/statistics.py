"""Add up the statistics of several engines, of which some have ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace

from handlers.engine.client import EngineStats

_SLOWEST = ("step_ms_p50", "step_ms_p99")
_BYTES = ("weight_bytes", "kv_bytes", "activation_bytes", "context_bytes", "graph_bytes")
_NOW = ("engines", "running", "waiting", "max_running", "blocks_used", "blocks_total", "tokens_per_s", *_BYTES, *_SLOWEST)


def add_up(engines: Iterable[EngineStats]) -> EngineStats:
    """Return the sum; of step times the longest."""
    rows: Sequence[EngineStats] = [EngineStats(), *engines]
    names = [field.name for field in fields(EngineStats)]
    values = {name: (max if name in _SLOWEST else sum)(getattr(row, name) for row in rows) for name in names}
    return EngineStats(**values)


def totals(engine: EngineStats) -> EngineStats:
    """Return what remains of an engine that has ended: what it has done, and nothing that it is doing."""
    return replace(engine, **dict.fromkeys(_NOW, 0))
