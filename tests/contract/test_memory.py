"""An archive with a plan: the server's metrics, and its worker, show what was predicted beside what was measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from handlers.memory_ledger import SCHEMA, Interval, LedgerLine, MemoryLedger
from tests.contract.clients import ModelClient, counter, orders_to, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

WEIGHTS, CONTEXT = Interval(1_000, 2_000, 10_000_000), Interval(1_000_000, 400_000_000, 4_000_000_000)
LEDGER = MemoryLedger("cpu", "a CPU", 8 << 30, (LedgerLine("weights", "", WEIGHTS), LedgerLine("context", "", CONTEXT)))
REPLICAS = 2


def test_metrics_show_predicted_and_measured_memory(build: Callable[..., Path]) -> None:
    plan = json.dumps({"schema": SCHEMA, "ledger": asdict(LEDGER)}).encode()
    archive = build("planned", plan=plan, settings={"engine": {"replicas": REPLICAS, "memory_policy": "refuse", "max_running": 4}})
    with TorchServe.start([ServedModel.from_archive(archive)]) as server:
        ModelClient(server, "planned").complete("the fox", max_tokens=2)
        order = orders_to(server, "planned")
        wait_until(lambda: order("stats")["engines"] == REPLICAS)
        stats, told = order("stats"), order("describe")

        def shows(metric: str, value: float, **labels: str) -> Callable[[], bool]:
            return lambda: counter(server, f"marquee_{metric}", "planned", **labels) == value

        # A client's end makes the worker report, whoever has reported to it by then.
        wait_until(lambda: ModelClient(server, "planned").complete("x", max_tokens=1) and shows("admitted_sequences", REPLICAS * 4)())
        for part, interval in (("weights", WEIGHTS), ("context", CONTEXT)):
            for bound, value in asdict(interval).items():
                wait_until(shows("predicted_memory_bytes", REPLICAS * value, part=part, bound=bound))
        for name in ("weight", "kv", "activation", "context"):
            assert stats[f"{name}_bytes"] > 0
        for metric, name in (("weight", "weight"), ("kv_cache", "kv"), ("activation", "activation"), ("context", "context")):
            assert shows(f"{metric}_bytes", stats[f"{name}_bytes"])()
        assert shows("out_of_memory_total", 0)()

    assert told["memory"]["predicted"] == {line.part: asdict(line.bytes) for line in LEDGER.lines}
    assert told["memory"]["measured"]["weights"] == stats["weight_bytes"]
    assert told["memory"]["engines"] == REPLICAS
