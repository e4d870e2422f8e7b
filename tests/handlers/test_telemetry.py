"""What is reported of a request, and that the server's configuration declares it."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from handlers.engine.client import EngineStats
from handlers.errors import InvalidRequest
from handlers.memory_ledger import Interval, LedgerLine, MemoryLedger
from handlers.mixins.metrics import MetricsMixin
from handlers.requests import Request
from handlers.telemetry import METRICS, EngineGauges, Metric, observe_request
from handlers.telemetry import catalogue as metrics
from handlers.time_ledger import PARTS, Part, TimeLedger
from handlers.torchserve import TorchServeHandler
from tests.fakes import keep_worker, make_context

LEDGER = MemoryLedger("cpu", "a CPU", 1 << 30, (LedgerLine("weights", "", Interval(90, 100, 120)),))
LABELS = {
    "status": "(ok|cancelled|429|500|503)",
    "part": "(weights|queue|prefill)",
    "bound": "(low|expected|high)",
    "WorkerName": "W-9007-tiny_1.0",
}
"""As the requests and the ledger of the last test have them."""


def spent(parts: Mapping[Part, float]) -> TimeLedger:
    """Return a ledger with these seconds in it."""
    ledger = TimeLedger()
    ledger.parts = dict(parts)
    return ledger


def observed(request: Request) -> dict[str, Any]:
    """Return each observation's value; of the requests' status the label, and of the parts each one's."""
    seen: dict[str, Any] = {}

    def report(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        name = " ".join([metric.name.removeprefix("marquee_"), *(labels.values() if metric is metrics.PART_TIME else ())])
        assert name not in seen and set(labels) == set(metric.labels)
        seen[name] = labels.get("status", value)

    observe_request(request, report)
    return seen


def test_durations_are_seconds_and_names_say_so() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"marquee_[a-z0-9_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.name.endswith("_seconds") == (metric.unit == "s") >= (metric.kind == "histogram")
        assert metric.name.endswith("_milliseconds") == (metric.unit == "ms")


def test_a_finished_request_is_observed_in_full() -> None:
    parts: dict[Part, float] = {"tokenize": 0.25, "queue": 0.5, "prefill": 0.75, "decode": 4.0, "detokenize": 1.0, "send": 0.5}
    request = Request(prompt_token_ids=[1, 2], num_generated_tokens=11, finish_reason="stop", times=spent(parts))

    seen = observed(request)

    assert seen["requests_total"] == "ok"
    assert (seen["prompt_tokens_total"], seen["generated_tokens_total"]) == (2, 11)
    assert seen["time_to_first_token_seconds"] == 1.5
    assert seen["request_seconds"] == sum(parts.values())
    assert {part: seen[f"request_part_seconds {part}"] for part in PARTS} == parts
    assert (seen["queue_seconds"], seen["inter_token_seconds"]) == (0.5, 0.5)
    assert "tokens_after_disconnect_total" not in seen


def test_one_token_has_no_time_between_tokens() -> None:
    seen = observed(Request(num_generated_tokens=1, finish_reason="stop", times=spent({"prefill": 1.0})))
    assert "inter_token_seconds" not in seen and "request_seconds" in seen


def test_a_refused_request_counts_under_its_status() -> None:
    seen = observed(Request(error=InvalidRequest("no")))
    assert seen == {"requests_total": "400", "prompt_tokens_total": 0, "cached_prompt_tokens_total": 0, "generated_tokens_total": 0}


def test_of_several_choices_the_first_counts_the_request_and_the_prompt() -> None:
    def names(index: int) -> set[str]:
        return set(observed(Request(index=index, n=2, prompt_token_ids=[1], num_generated_tokens=3, finish_reason="stop")))

    request, prompt = {"requests_total"}, {"prompt_tokens_total", "cached_prompt_tokens_total"}
    always = {"generated_tokens_total"}
    assert [names(index) for index in range(4)] == [always | request | prompt, always, always | prompt, always]


def test_a_request_that_waited_tells_how_long_even_if_it_failed() -> None:
    assert observed(Request(times=spent({"queue": 0.25}), error=InvalidRequest("no")))["queue_seconds"] == 0.25


class TestGauges:
    @pytest.fixture
    def seen(self) -> list[tuple[Metric, float, Any]]:
        return []

    @pytest.fixture
    def show(self, seen: list[Any]) -> Callable[..., None]:
        """Return a function that has the statistics of one engine reported."""
        stats: dict[str, Any] = {}
        gauges = EngineGauges(lambda *observation: seen.append(observation), lambda: dict(stats), LEDGER)

        def show(**some: Any) -> None:
            stats.update(asdict(EngineStats(**some)))
            gauges.report()

        return show

    def test_a_snapshot_becomes_gauges(self, show: Callable[..., None], seen: list[Any]) -> None:
        show(running=3, waiting=2, blocks_used=7, blocks_total=10, cached_tokens=30, queried_tokens=40, drafted_tokens=8, accepted_tokens=6)

        values = {metric.name.removeprefix("marquee_"): value for metric, value, _ in seen}
        assert (values["running_sequences"], values["waiting_sequences"]) == (3, 2)
        assert (values["kv_blocks_used"], values["kv_blocks"], values["kv_usage_ratio"], values["prefix_hit_ratio"]) == (7, 10, 0.7, 0.75)
        assert (values["draft_tokens_total"], values["accepted_draft_tokens_total"], values["draft_acceptance_ratio"]) == (8, 6, 0.75)
        assert values["preemptions_total"] == 0, "what is not there cannot be seen to grow"

    def test_what_has_not_changed_is_not_reported_again(self, show: Callable[..., None], seen: list[Any]) -> None:
        for running in (3, 3, 2, 2):
            show(running=running)

        assert [value for metric, value, _ in seen if metric is metrics.RUNNING] == [3, 2]

    def test_a_report_that_failed_is_made_again(self, seen: list[Any]) -> None:
        failures = iter([RuntimeError("lost")])

        def report(*observation: Any) -> None:
            if len(seen) == 2 and (failure := next(failures, None)):
                raise failure
            seen.append(observation)

        gauges = EngineGauges(report, lambda: asdict(EngineStats(running=3)))
        with pytest.raises(RuntimeError):
            gauges.report()
        gauges.report()

        assert len({metric for metric, *_ in seen}) > 10

    def test_totals_are_counted_by_their_increase_and_after_a_restart(self, show: Callable[..., None], seen: list[Any]) -> None:
        for total in (2, 2, 5, 1, 1):
            show(preemptions=total, out_of_memory=2 * total, steps=10 * total, sampled_sequences=30 * total)

        def increases(metric: Metric) -> list[float]:
            return [value for seen_metric, value, _ in seen if seen_metric is metric]

        assert increases(metrics.PREEMPTIONS) == [2, 3, 1]
        assert increases(metrics.OUT_OF_MEMORY) == [4, 6, 2]
        assert (increases(metrics.BATCHES), increases(metrics.BATCHED_SEQUENCES)) == ([20, 30, 10], [60, 90, 30])

    def test_what_was_predicted_of_an_engine_counts_for_each(self, show: Callable[..., None], seen: list[Any]) -> None:
        show(engines=2, weight_bytes=210)

        assert [(labels["part"], labels["bound"], value) for metric, value, labels in seen if metric is metrics.PREDICTED_BYTES] == [
            ("weights", "low", 180),
            ("weights", "expected", 200),
            ("weights", "high", 240),
        ]

    def test_they_are_reported_by_themselves_and_an_engine_without_statistics_hurts_nobody(
        self, seen: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("handlers.telemetry.engine_gauges._EVERY_S", 0.001)
        answers: Iterator[Any] = iter([RuntimeError("lost"), asdict(EngineStats(running=1)), asdict(EngineStats())])
        is_over = threading.Event()

        def stats() -> Mapping[str, float]:
            answer = next(answers, None)
            if answer is None:
                is_over.set()
                return asdict(EngineStats())
            if isinstance(answer, Exception):
                raise answer
            return answer  # type: ignore[no-any-return]

        gauges = EngineGauges(lambda *observation: seen.append(observation), stats)
        gauges.start()
        assert is_over.wait(10)
        gauges.close()
        gauges._thread.join(10)

        assert not gauges._thread.is_alive()
        assert [value for metric, value, _ in seen if metric is metrics.RUNNING] == [1, 0]


def test_a_cancelled_request_tells_what_was_wasted() -> None:
    seen = observed(Request(finish_reason="cancelled", num_generated_tokens=9, num_wasted_tokens=4))
    assert (seen["requests_total"], seen["tokens_after_disconnect_total"]) == ("cancelled", 4)


def test_torchserve_writes_every_metric_as_its_frontend_reads_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Reporting(MetricsMixin, TorchServeHandler):
        pass

    keep_worker(monkeypatch)
    monkeypatch.setattr("sys.argv", ["model_service_worker.py", "--sock-type", "unix", "--sock-name", "/tmp/.ts.sock.9007"])
    context = make_context(Reporting, tmp_path)
    context.metrics.set_request_ids({0: "secret-id"})
    handler = Reporting()
    with caplog.at_level(logging.INFO):
        handler.initialize(context)
        handler.record(Request(finish_reason="cancelled"))
        handler.record(Request(num_generated_tokens=2, finish_reason="stop", times=spent({"queue": 0.1, "prefill": 1.0})))
        totals = ("steps", "sampled_sequences", "drafted_tokens", "accepted_tokens", "preemptions", "out_of_memory", "restarts")
        counted = dict.fromkeys(totals, 1)
        EngineGauges(handler.report, lambda: asdict(EngineStats(**counted)), LEDGER).report()
        for metric in (metrics.POSITIONS, metrics.PADDING):  # of the static path
            handler.report(metric, 1, {})
    handler.close()

    lines = [record.message for record in caplog.records if record.message.startswith("[METRICS]")]
    by_name = {metric.name: metric for metric in METRICS}
    assert {line.removeprefix("[METRICS]").partition(".")[0] for line in lines} == by_name.keys()
    for line in lines:
        metric = by_name[line.removeprefix("[METRICS]").partition(".")[0]]
        labels = ",".join(["ModelName:tiny", "ModelVersion:1.0", *(f"{label}:{LABELS[label]}" for label in metric.labels)])
        unit = {"count": "Count", "s": "Seconds", "ms": "Milliseconds", "B": "Bytes"}[metric.unit]
        assert re.match(rf"\[METRICS\]{metric.name}\.{unit}:[0-9.e+-]+\|#{labels}\|#type:{metric.kind.upper()}\|", line), line
        assert "secret-id" not in line
