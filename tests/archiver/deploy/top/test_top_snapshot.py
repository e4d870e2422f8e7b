"""What two readings of a real server say: recorded, but for the second model, which was written to be in trouble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from archiver.deploy.management import ModelStatus
from archiver.deploy.scrape import Samples
from archiver.deploy.top.history import History
from archiver.deploy.top.snapshot import ModelRow, Snapshot, take_snapshot
from handlers.telemetry import METRICS

URL = "http://127.0.0.1:8082/metrics"

RowsOf = Callable[..., dict[str, ModelRow]]


@pytest.fixture
def rows(recorded: History) -> RowsOf:
    """Return a function from statuses, and a history instead of the recorded one, to the rows by name."""

    def rows(*statuses: ModelStatus, history: History = recorded) -> dict[str, ModelRow]:
        return {row.name: row for row in take_snapshot(URL, history, statuses).models}

    return rows


def test_a_continuous_model_is_shown_with_all_that_it_reports(rows):
    row = rows()["tinychat"]
    assert replace(row, ttft_p50_s=None, ttft_p90_s=None, inter_token_p50_s=None, kv_share=None) == ModelRow(
        name="tinychat",
        version="1.0",
        running=12,
        max_running=64,
        waiting=0,
        tokens_per_s=4520.0,
        requests_per_s=(138 - 89) / 5,
        refused_per_s=2.0,
        failed_per_s=0,
        prefix_hit_share=0,
        num_engines=1,
        memory_bytes=8203264 + 167772160 + 10530816 + 408978432,
        tokens_lately=(4493.8, 4520.0),
    )
    assert row.kv_share == pytest.approx(390 / 4096)
    # Of the 39 first tokens between the readings 8 took up to 10 ms and 23 more up to 25 ms; 8 more took up to 50 ms.
    assert row.ttft_p50_s == pytest.approx(0.010 + 0.015 * (19.5 - 8) / 23)
    assert row.ttft_p90_s == pytest.approx(0.025 + 0.025 * (35.1 - 31) / 8)
    assert row.inter_token_p50_s == pytest.approx(0.0025)


def test_a_handler_of_somebody_elses_shows_what_torchserve_knows(rows, status):
    assert rows(status("detector"))["detector"] == ModelRow(
        "detector", "1.0", waiting=2, requests_per_s=0.2, num_ready=1, num_workers=1, pids=(10,)
    )


def test_the_management_api_adds_workers_and_torchserves_queue(rows, status):
    row = rows(status("support-assistant", "2.0", (True, False), memory_bytes=300))["support-assistant"]
    assert (row.num_ready, row.num_workers, row.pids, row.memory_bytes) == (1, 2, (10, 11), 600)
    assert row.waiting == 31 + 2
    assert (row.refused_per_s, row.failed_per_s) == (6 / 5, 1 / 5)


def test_requests_that_name_no_version_are_the_default_versions(status):
    def reading(at_s: float, by_version: dict[str, float]) -> Samples:
        counts = tuple(({"model_name": "bot", "model_version": version}, count) for version, count in by_version.items())
        return Samples({"ts_inference_requests_total": counts}, at_s)

    history = History((reading(0.0, {"1.0": 1, "2.0": 1, "default": 1}), reading(5.0, {"1.0": 6, "2.0": 11, "default": 16})))
    statuses = [status("bot", "1.0"), replace(status("bot", "2.0"), is_default=False)]
    assert [(row.version, row.requests_per_s) for row in take_snapshot(URL, history, statuses).models] == [("1.0", 4.0), ("2.0", 2.0)]


def test_a_model_that_has_reported_nothing_yet_has_a_row(recorded, status):
    models = take_snapshot(URL, recorded, [status("new")]).models
    assert [(row.name, row.num_ready) for row in models] == [
        ("detector", None),
        ("new", 1),
        ("support-assistant", None),
        ("tinychat", None),
    ]


def test_versions_of_one_name_are_models_of_their_own(recorded, status):
    models = take_snapshot(URL, recorded, [status("tinychat", "2.0")]).models
    assert [(row.version, row.running) for row in models if row.name == "tinychat"] == [("1.0", 12), ("2.0", None)]


def test_one_reading_has_no_rates_but_all_times(rows, reading):
    row = rows(history=History().add(reading("after", 1.0)))["tinychat"]
    assert row.requests_per_s is None
    assert row.ttft_p50_s is not None


def test_without_new_requests_times_are_those_of_before(rows, reading):
    same = History().add(reading("after", 1.0)).add(reading("after", 2.0))
    assert rows(history=same)["tinychat"].ttft_p50_s == rows(history=History().add(reading("after", 1.0)))["tinychat"].ttft_p50_s
    assert rows(history=same)["tinychat"].requests_per_s == 0


def test_nothing_running_generates_nothing(rows, reading):
    by_name = dict(reading("after", 1.0).by_name)
    by_name["marquee_running_sequences"] = tuple((labels, 0.0) for labels, _ in by_name["marquee_running_sequences"])
    row = rows(history=History().add(Samples(by_name)))["tinychat"]
    assert (row.running, row.tokens_per_s, row.tokens_lately) == (0, 0, (0,))


def test_a_minute_is_kept_and_always_the_reading_before():
    history = History()
    for second in range(100):
        history = history.add(Samples({}, scraped_s=float(second)))
    assert (history.readings[0].scraped_s, history.latest.scraped_s) == (39.0, 99.0)
    assert [kept.scraped_s for kept in history.add(Samples({}, scraped_s=500.0)).readings] == [99.0, 500.0]


@pytest.mark.parametrize("interval_s", [0.5, 1.0, 7.0, 100.0])
def test_rates_do_not_depend_on_how_often_one_looks(interval_s):
    history = History()
    for look in range(20):
        at_s = look * interval_s
        history = history.add(Samples({"count": (({}, 3 * at_s),)}, scraped_s=at_s))
    assert history.per_s("count") == pytest.approx(3.0)


def test_handlers_still_report_what_was_recorded(reading):
    names = {name for name in reading("after", 0.0).by_name if name.startswith("marquee_")}
    assert {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in names} <= {m.name for m in METRICS}


def test_no_metrics_no_models():
    assert take_snapshot(URL, History().add(Samples({})), []) == Snapshot(URL)
