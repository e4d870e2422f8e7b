"""What one frame shows: a row a model, computed from the readings and from what the management API says.

The metrics are those of the handlers (``handlers/telemetry``) and TorchServe's own, as ``config/metrics.yaml`` declares them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from archiver.deploy.management import ModelStatus
from archiver.deploy.scrape import DEFAULT_VERSION, Samples
from archiver.deploy.top.history import History

_MEASURED_MEMORY = ("weight", "kv_cache", "activation", "context", "graph")


@dataclass(frozen=True)
class ModelRow:
    """One version of a model; None is what nobody reports. Times are in seconds, shares from 0 to 1.

    ``running`` sequences of at most ``max_running`` are being generated, ``waiting`` ones not yet. ``refused_per_s`` are answers with a
    status of 4xx, ``failed_per_s`` with 5xx. ``num_ready`` of ``num_workers`` workers have loaded the model, and ``num_engines`` work
    behind them. ``memory_bytes``: of the workers, or else what the handler measured. ``tokens_lately``: tokens a second, by reading.
    """

    name: str
    version: str
    running: float | None = None
    max_running: float | None = None
    waiting: float | None = None
    tokens_per_s: float | None = None
    requests_per_s: float | None = None
    refused_per_s: float | None = None
    failed_per_s: float | None = None
    ttft_p50_s: float | None = None
    ttft_p90_s: float | None = None
    inter_token_p50_s: float | None = None
    kv_share: float | None = None
    prefix_hit_share: float | None = None
    num_engines: float | None = None
    num_ready: int | None = None
    num_workers: int | None = None
    pids: tuple[int, ...] = ()
    memory_bytes: float | None = None
    tokens_lately: tuple[float, ...] = ()


@dataclass(frozen=True)
class Snapshot:
    """One frame. ``problem``: why there is nothing to show, in one line."""

    url: str
    models: tuple[ModelRow, ...] = ()
    problem: str | None = None


def take_snapshot(url: str, history: History, statuses: Sequence[ModelStatus]) -> Snapshot:
    """Return what is to be seen at the time of the latest reading; ``statuses`` are empty where the management API is out of reach."""
    known = {(status.name, status.version): status for status in statuses}
    models = sorted(known.keys() | _reporting(history.latest))
    return Snapshot(url, tuple(_row(model, history, known.get(model)) for model in models))


def _reporting(reading: Samples) -> set[tuple[str, str]]:
    """Return the models that any metric is about, and their versions."""
    labels = [found for samples in reading.by_name.values() for found, _ in samples]
    ours = {(found["ModelName"], found["ModelVersion"]) for found in labels if {"ModelName", "ModelVersion"} <= found.keys()}
    theirs = {(found["model_name"], found["model_version"]) for found in labels if "model_version" in found}
    return ours | {model for model in theirs if model[1] != DEFAULT_VERSION}


def _row(model: tuple[str, str], history: History, status: ModelStatus | None) -> ModelRow:
    name, version = model
    labels = {"ModelName": name, "ModelVersion": version}

    def gauge(metric: str) -> float | None:
        return history.value(f"marquee_{metric}", **labels)

    rate = _token_rate(history.latest, labels)
    return ModelRow(
        name=name,
        version=version,
        running=gauge("running_sequences"),
        max_running=gauge("admitted_sequences"),
        waiting=_waiting(gauge("waiting_sequences"), status),
        tokens_per_s=history.per_s("marquee_generated_tokens_total", **labels) if rate is None else rate,
        requests_per_s=_requests_per_s(history, name, [version, *([DEFAULT_VERSION] if status is None or status.is_default else [])]),
        refused_per_s=_answers_per_s(history, labels, "4"),
        failed_per_s=_answers_per_s(history, labels, "5"),
        ttft_p50_s=history.quantile("marquee_time_to_first_token_seconds", 0.5, **labels),
        ttft_p90_s=history.quantile("marquee_time_to_first_token_seconds", 0.9, **labels),
        inter_token_p50_s=history.quantile("marquee_inter_token_seconds", 0.5, **labels),
        kv_share=_share(gauge("kv_blocks_used"), gauge("kv_blocks")),
        prefix_hit_share=gauge("prefix_hit_ratio"),
        num_engines=gauge("engines"),
        num_ready=status.num_ready if status else None,
        num_workers=len(status.workers) if status else None,
        pids=tuple(worker.pid for worker in status.workers) if status else (),
        memory_bytes=_memory(status) or _sum(gauge(f"{part}_bytes") for part in _MEASURED_MEMORY),
        tokens_lately=() if rate is None else tuple(_token_rate(reading, labels) or 0.0 for reading in history.readings),
    )


def _token_rate(reading: Samples, labels: dict[str, str]) -> float | None:
    """Return the engine's own figure; None of a handler without one. It stands as it was when nothing runs any more."""
    rate = reading.value("marquee_generated_tokens_per_second", **labels)
    return rate if rate is None or reading.value("marquee_running_sequences", **labels) else 0.0


def _waiting(in_engine: float | None, status: ModelStatus | None) -> float | None:
    """Return how many wait for the engine and, before that, in TorchServe's own queue."""
    return _sum((in_engine, status.pending_requests if status else None))


def _requests_per_s(history: History, name: str, versions: Sequence[str]) -> float | None:
    return _sum(history.per_s("ts_inference_requests_total", model_name=name, model_version=version) for version in versions)


def _answers_per_s(history: History, labels: dict[str, str], leading_digit: str) -> float | None:
    if history.value("marquee_load_seconds", **labels) is None:
        return None  # not a handler of ours, and it counts no answers
    codes = history.latest.values("marquee_requests_total", "status", **labels)
    return sum(history.per_s("marquee_requests_total", status=code, **labels) or 0.0 for code in codes if code.startswith(leading_digit))


def _share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def _memory(status: ModelStatus | None) -> float | None:
    return sum(worker.memory_bytes for worker in status.workers) if status else None


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
