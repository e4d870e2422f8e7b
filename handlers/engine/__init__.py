"""Continuous batching: sequences join and leave the batch at every step."""

from handlers.engine.client import EngineClient, EngineStats, Event

__all__ = ["EngineClient", "EngineStats", "Event"]
