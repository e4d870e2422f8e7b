"""Metrics of a server with two models, one of them with two workers, read by Prometheus' own parser; and where an answer's time went."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from archiver.deploy.launch import TorchServe
from archiver.deploy.served_model import ServedModel
from handlers.memory_ledger import SCHEMA, Interval, LedgerLine, MemoryLedger
from handlers.telemetry import METRICS
from handlers.telemetry import catalogue as metrics
from handlers.telemetry.metric import Metric
from handlers.time_ledger import PARTS
from tests.contract.clients import PATIENCE_S, ModelClient, at_once, orders_to, wait_until
from tests.contract.conftest import BATCHED_HANDLER

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

LEDGER = MemoryLedger("cpu", "a CPU", 8 << 30, (LedgerLine("weights", "", Interval(1_000, 2_000, 10_000_000)),))
ENGINE = {"max_running": 1, "max_waiting": 64}
STATIC_ONLY = {metrics.POSITIONS, metrics.PADDING}
TOLERANCE = 0.02


@pytest.fixture(scope="module")
def server(build: Callable[..., Path]) -> Iterator[TorchServe]:
    """``one`` is continuous, one request at a time, and holds answers for long; ``several`` is synchronous and has two workers."""
    plan = json.dumps({"schema": SCHEMA, "ledger": asdict(LEDGER)}).encode()
    one = build("one", format="dir", plan=plan, settings={"engine": ENGINE, "stream": {"hold_ms": 60_000}})
    several = build("several", handler=BATCHED_HANDLER)
    with TorchServe.start([ServedModel.from_archive(archive) for archive in (one, several)]) as server:
        workers = {"min_worker": 2, "max_worker": 2, "synchronous": "true"}
        assert httpx.put(f"{server.management_url}/models/several", params=workers, timeout=PATIENCE_S).is_success
        yield server


@pytest.fixture(scope="module")
def one(server: TorchServe) -> ModelClient:
    return ModelClient(server, "one")


@pytest.fixture(scope="module")
def several(server: TorchServe) -> ModelClient:
    return ModelClient(server, "several")


def families(server: TorchServe) -> dict[str, Family]:
    """Return what the server publishes, by name; Prometheus' parser takes ``_total`` off the names of counters."""
    return {family.name: family for family in text_string_to_metric_families(httpx.get(server.metrics_url, timeout=PATIENCE_S).text)}


def samples(server: TorchServe, metric: Metric, model: str, **labels: str) -> list[tuple[dict[str, str], float]]:
    """Return the series of a metric and their values; of a histogram the numbers of observations."""
    family = families(server).get(metric.name.removesuffix("_total"))
    wanted = {"ModelName": model} | labels
    name = f"{metric.name}_count" if metric.kind == "histogram" else metric.name
    found = [sample for sample in (family.samples if family else []) if sample.name == name]
    return [(dict(sample.labels), sample.value) for sample in found if wanted.items() <= sample.labels.items()]


def total(server: TorchServe, metric: Metric, model: str, **labels: str) -> float:
    return sum(value for _, value in samples(server, metric, model, **labels))


def test_every_metric_is_published_with_its_type_and_labels(server: TorchServe, one: ModelClient, several: ModelClient) -> None:
    for client in (one, several):
        client.complete("quick fox", max_tokens=5)
    with httpx.stream("POST", f"{one.base_url}/completions", json={"prompt": "x", "max_tokens": 7500, "stream": True, "ignore_eos": True}):
        pass  # It leaves at once.
    one.complete("quick fox", max_tokens=5)
    wait_until(lambda: samples(server, metrics.WASTED_TOKENS, "one"))

    published = families(server)
    for metric in METRICS:
        model = "several" if metric in STATIC_ONLY else "one"
        wait_until(lambda metric=metric, model=model: samples(server, metric, model))  # type: ignore[misc]
        assert published[metric.name.removesuffix("_total")].type == metric.kind
        for labels, _ in samples(server, metric, model):
            assert set(labels) == {"ModelName", "ModelVersion", "Hostname", *metric.labels}
            assert labels["ModelVersion"] == "1.0"


def test_what_each_worker_has_of_its_own_names_the_worker(server: TorchServe) -> None:
    load_times = {labels["WorkerName"]: value for labels, value in samples(server, metrics.LOAD_TIME, "several")}
    weights = {labels["WorkerName"]: value for labels, value in samples(server, metrics.WEIGHT_BYTES, "several")}
    torchserves = {sample.labels["WorkerName"] for sample in families(server)["WorkerLoadTime"].samples}

    assert len(load_times) == 2 and load_times.keys() == weights.keys()
    assert load_times.keys() <= torchserves and all(name.endswith("-several_1.0") for name in load_times)
    assert len(set(weights.values())) == 1 and min(load_times.values()) > 0


def test_counters_and_histograms_of_two_workers_add_up(server: TorchServe, several: ModelClient) -> None:
    counted = (metrics.REQUESTS, metrics.REQUEST_TIME, metrics.BATCHED_SEQUENCES, metrics.QUEUE_TIME, metrics.FIRST_TOKEN_TIME)
    before = [total(server, metric, "several") for metric in counted]
    elsewhere = total(server, metrics.REQUESTS, "one")

    at_once(lambda number: several.complete(f"number {number}", max_tokens=4), range(24))

    wait_until(lambda: [total(server, metric, "several") for metric in counted] == [count + 24 for count in before])
    for part in PARTS:
        assert total(server, metrics.PART_TIME, "several", part=part) == total(server, metrics.REQUEST_TIME, "several")
    assert 1 <= total(server, metrics.BATCHES, "several") <= total(server, metrics.BATCHED_SEQUENCES, "several")
    assert total(server, metrics.PADDING, "several") < total(server, metrics.POSITIONS, "several")
    assert total(server, metrics.REQUESTS, "one") == elsewhere


def test_the_parts_of_an_answer_are_the_time_that_its_client_waited(server: TorchServe, one: ModelClient) -> None:
    """What is outside of the worker is a few milliseconds, unless the machine is busy with something else just then."""
    body = {"prompt": "quick fox", "max_tokens": 1500, "ignore_eos": True}
    with httpx.Client(timeout=PATIENCE_S) as client:
        shares = []
        for _ in range(5):
            client.get(f"{one.base_url}/models")  # The connection is there, and the frontend awake.
            start_s = time.monotonic()
            response = client.post(f"{one.base_url}/completions", json=body)
            waited_s = time.monotonic() - start_s
            parts = {name: float(value) / 1000 for name, value in re.findall(r"(\w+);dur=([\d.]+)", response.headers["Server-Timing"])}
            assert "content-length" in response.headers
            assert parts.pop("total") == pytest.approx(sum(parts.values()), abs=0.001)
            assert tuple(parts) == PARTS
            assert waited_s > 1.0, "so fast a machine needs a longer answer"
            shares.append(1 - sum(parts.values()) / waited_s)
            if 0 <= shares[-1] <= TOLERANCE:
                return
    pytest.fail(f"the parts leave out these shares of the time: {shares}")


def test_gauges_follow_when_nobody_asks_any_more(server: TorchServe, one: ModelClient) -> None:
    one.complete("quick fox", max_tokens=300, ignore_eos=True)

    for metric in (metrics.RUNNING, metrics.WAITING, metrics.KV_USED, metrics.KV_USAGE):
        wait_until(lambda metric=metric: total(server, metric, "one") == 0)  # type: ignore[misc]


@contextmanager
def occupied(one: ModelClient) -> Iterator[None]:
    """Have the engine's one place taken."""
    body = {"prompt": "quick fox", "max_tokens": 7500, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{one.base_url}/completions", json=body, timeout=PATIENCE_S) as response:
        lines = response.iter_lines()
        next(lines)
        yield


def test_who_waited_too_long_gets_a_429(server: TorchServe, one: ModelClient) -> None:
    with occupied(one):
        response = one.post({"prompt": "x", "max_queue_s": 0.2})

    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_timeout")
    assert "Retry-After" in response.headers
    wait_until(lambda: total(server, metrics.REQUESTS, "one", status="429") == 1)


def test_who_loses_the_engine_gets_a_500_and_the_restart_is_counted(server: TorchServe, one: ModelClient) -> None:
    wait_until(lambda: one.openai.models.list() and total(server, metrics.RUNNING, "one") == 0)  # The last test's client has left.
    order = orders_to(server, "one")
    (engine,) = order("describe")["replicas"]

    def ask(_: int) -> httpx.Response:
        return one.post({"prompt": "quick fox", "max_tokens": 7500, "ignore_eos": True})

    def kill(_: int) -> None:
        wait_until(lambda: order("describe")["replicas"][0]["sequences"] == 1)
        time.sleep(0.5)  # it has begun, and is held; the metrics, up to two seconds old, would tell too late
        os.kill(engine["pid"], signal.SIGKILL)

    response, _ = at_once(lambda job: job(0), [ask, kill])

    assert response is not None and (response.status_code, response.json()["error"]["type"]) == (500, "server_error")
    wait_until(lambda: total(server, metrics.RESTARTS, "one") == 1)
    wait_until(lambda: total(server, metrics.REQUESTS, "one", status="500") == 1)
