"""A whole plan: what was chosen, why, how sure it is, and the configuration that follows."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from archiver.plan.choice import Rejection, choose, missed_target
from archiver.plan.configuration import engine_settings, frontend_keys, server_properties
from archiver.plan.option import Option
from archiver.plan.recommendation import Advice, advise
from archiver.plan.remedies import Remedy, find_remedies
from archiver.plan.request import PlanRequest
from archiver.plan.static_batching import StaticBatching, tune
from archiver.plan.verdict import Verdict, judge
from handlers.memory_ledger import SCHEMA, Interval


@dataclass(frozen=True)
class OperatingPoint:
    """What to expect with ``batch`` sequences at once on each replica: tokens a second of all replicas, seconds between two tokens."""

    batch: int
    tokens_per_s: Interval
    itl_s: Interval


@dataclass(frozen=True)
class Plan:
    """The ``option`` that was chosen of the ways to run what was asked for, and all that is said about it.

    ``batching``: what TorchServe's own batching would take, for a rate that was stated; None without one, or if it cannot keep up.
    """

    option: Option
    reason: str
    rejected: tuple[Rejection, ...]
    verdict: Verdict
    remedies: tuple[Remedy, ...]
    advice: tuple[Advice, ...]
    batching: StaticBatching | None

    @property
    def request(self) -> PlanRequest:
        """What it is a plan for."""
        return self.option.request

    @property
    def missed_target(self) -> str | None:
        """Which latency or rate is expected to be missed; None if none is."""
        return missed_target(self.option)

    def operating_points(self) -> tuple[OperatingPoint, ...]:
        """Return what to expect of batches of 1, 2, 4 … sequences, up to twice what is planned, and of what is planned."""
        option, context = self.option, self.request.workload.mean_context_tokens
        batches = sorted({1 << power for power in range((2 * option.max_running).bit_length())} | {option.max_running})
        return tuple(
            OperatingPoint(
                batch,
                option.speed.tokens_per_s(batch, context) * option.layout.data,
                option.speed.decode_step(batch, context),
            )
            for batch in batches
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, the same for the same request: no times, no paths, nothing of what the machine is doing just now."""
        option, request = self.option, self.request
        return {
            "schema": SCHEMA,
            "model": _model(request),
            "hardware": {"id": request.hardware.id, "name": request.hardware.name, "count": request.count},
            "workload": asdict(request.workload),
            "engine": option.replica.engine.name,
            "layout": asdict(option.layout),
            "sizes": asdict(option.replica.sizes),
            "ledger": asdict(option.ledger),
            "capacity": asdict(option.capacity) | {"tokens": option.capacity.tokens},
            "speed": {
                "tokens_per_s": asdict(option.tokens_per_s),
                "itl_s": asdict(option.itl_s),
                "ttft_s": asdict(option.ttft_s),
                "balanced_batch": option.speed.balanced_batch(),
                "is_calibrated": request.hardware.decode_efficiency.calibrated and request.hardware.prefill_efficiency.calibrated,
                "points": [asdict(point) for point in self.operating_points()],
            },
            "verdict": asdict(self.verdict),
            "reason": self.reason,
            "missed_target": self.missed_target,
            "rejected": [{"layout": asdict(each.option.layout), "reason": each.reason} for each in self.rejected],
            "remedies": [remedy.change for remedy in self.remedies],
            "advice": [asdict(advice) for advice in self.advice],
            "static_batching": asdict(self.batching) if self.batching else None,
            "settings": engine_settings(option),
            "frontend": frontend_keys(option, None),
            "properties": server_properties(option),
        }

    def to_json(self) -> bytes:
        """Return the content of ``plan.json``."""
        return json.dumps(self.to_dict(), indent=1).encode() + b"\n"


def make_plan(request: PlanRequest) -> Plan:
    """Plan: choose, judge, and where it does not fit look for what would."""
    choice = choose(request)
    verdict = judge(choice.option)
    remedies = find_remedies(choice.option) if verdict.fits == "no" else ()
    return Plan(choice.option, choice.reason, choice.rejected, verdict, remedies, advise(choice.option), _batching(choice.option))


def _batching(option: Option) -> StaticBatching | None:
    """Tune TorchServe's own batching to the rate: a batch lasts as long as its longest answer, over prompts padded to its longest."""
    workload = option.request.workload
    if workload.rate is None:
        return None

    def service_s(batch: int) -> float:
        steps = option.speed.decode_step(batch, workload.mean_context_tokens).expected * workload.output_tokens.p95
        longest = workload.prompt_tokens.p50 if batch == 1 else workload.prompt_tokens.p95
        return batch * option.speed.prefill(longest).expected + steps

    latency_s = None
    if workload.ttft_ms is not None and workload.itl_ms is not None:
        latency_s = (workload.ttft_ms + workload.itl_ms * workload.output_tokens.p95) / 1000
    return tune(workload.rate / option.layout.data, service_s, latency_s, largest=option.capacity.sequences.p95)


def _model(request: PlanRequest) -> dict[str, Any]:
    model = request.model
    return {
        "name": model.name,
        "architecture": model.architecture,
        "num_parameters": model.num_elements,
        "weight_bytes": model.weight_bytes,
        "format": model.format.name,
        "dtype": model.dtype,
        "is_exact": model.is_exact,
    }
