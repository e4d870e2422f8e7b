"""What an operator may ask of a running engine, and tell it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from handlers.engine.client import EngineClient
from handlers.engine.memory.footprint import Footprint
from handlers.engine.process.client import ProcessClient
from handlers.errors import ConfigError
from handlers.memory_ledger import MemoryLedger

_MAX_REPLICAS = 64


def describe_engine(engine: EngineClient) -> dict[str, Any]:
    """Return an engine's limits, what its weights take in memory and, if it runs in processes of its own, those."""
    replicas = [asdict(replica) for replica in engine.replicas()] if isinstance(engine, ProcessClient) else []
    limits, weight_bytes = asdict(engine.limits), engine.stats().weight_bytes
    return {"max_model_len": engine.max_model_len, "limits": limits, "weight_bytes": weight_bytes, "replicas": replicas}


def describe_memory(engine: EngineClient, ledger: MemoryLedger | None) -> dict[str, Any]:
    """Return, in bytes, what all engines take, part by part, and what was planned for each of them."""
    stats = engine.stats()
    measured = Footprint(stats.weight_bytes, stats.kv_bytes, stats.activation_bytes, stats.context_bytes, stats.graph_bytes)
    predicted = {line.part: asdict(line.bytes) for line in ledger.lines} if ledger else None
    return {"memory": {"engines": stats.engines, "measured": asdict(measured), "predicted": predicted}}


def engine_commands(engine: EngineClient) -> dict[str, Callable[..., Any]]:
    """Return ``stats()`` and ``scale(replicas)``, with JSON values for arguments and results."""

    def stats() -> dict[str, Any]:
        return asdict(engine.stats())

    def scale(replicas: int) -> dict[str, Any]:
        if not isinstance(engine, ProcessClient):
            raise ConfigError("this engine runs inside the worker: set handler.engine.process: true")
        if type(replicas) is not int or not 1 <= replicas <= _MAX_REPLICAS:
            raise ConfigError(f"replicas must be a number from 1 to {_MAX_REPLICAS}, got {replicas!r}")
        engine.scale(replicas)
        return describe_engine(engine)

    return {"stats": stats, "scale": scale}
