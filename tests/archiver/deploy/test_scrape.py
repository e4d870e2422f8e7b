"""Reading metrics: what a real server writes, what is not metrics, and quantiles of what was observed between two readings."""

from __future__ import annotations

import math
import statistics
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.scrape import Histogram, MetricsUnavailable, parse_samples, scrape

# As TorchServe 0.12 writes them: a comma after the last label, counters with and without `_total`, names of labels in two styles.
TEXT = """\
# HELP marquee_requests_total Torchserve prometheus counter metric with unit: count
# TYPE marquee_requests_total counter
marquee_requests_total{ModelName="chat",status="ok",Hostname="vm",} 8.0
marquee_requests_total{ModelName="chat",status="429",Hostname="vm",} 2.0
marquee_requests_total{ModelName="other",status="ok",Hostname="vm",} 5.0
# HELP ts_queue_latency_microseconds Torchserve prometheus counter metric with unit: Microseconds
# TYPE ts_queue_latency_microseconds counter
ts_queue_latency_microseconds{model_name="chat",model_version="1.0",hostname="vm",} 2855820.949
# HELP marquee_preemptions_total Torchserve prometheus counter metric with unit: count
# TYPE marquee_preemptions_total counter
# HELP marquee_queue_seconds Torchserve prometheus histogram metric with unit: s
# TYPE marquee_queue_seconds histogram
marquee_queue_seconds_bucket{ModelName="chat",Hostname="vm",le="0.1",} 6.0
marquee_queue_seconds_bucket{ModelName="chat",Hostname="vm",le="0.5",} 7.0
marquee_queue_seconds_bucket{ModelName="chat",Hostname="vm",le="+Inf",} 8.0
marquee_queue_seconds_count{ModelName="chat",Hostname="vm",} 8.0
marquee_queue_seconds_sum{ModelName="chat",Hostname="vm",} 1.5
"""
BOUNDS = (0.005, 0.01, 0.1, 1.0, 10.0, math.inf)

seconds = st.floats(0.0, 20.0)


def observed(observations: list[float]) -> Histogram:
    return Histogram(BOUNDS, tuple(float(sum(each <= bound for each in observations)) for bound in BOUNDS), sum(observations))


def test_samples_are_summed_over_the_labels_that_are_not_asked_for():
    samples = parse_samples(TEXT)
    assert samples.value("marquee_requests_total") == 15
    assert samples.value("marquee_requests_total", ModelName="chat") == 10
    assert samples.value("marquee_requests_total", ModelName="chat", status="ok") == 8
    assert samples.values("marquee_requests_total", by="status") == {"ok": 13, "429": 2}
    assert samples.values("marquee_requests_total", "status", ModelName="other") == {"ok": 5}


def test_a_counter_has_the_name_that_the_server_gave_it():
    assert parse_samples(TEXT).value("ts_queue_latency_microseconds", model_name="chat") == 2855820.949


@pytest.mark.parametrize("name", ["marquee_preemptions_total", "no_such_metric"])
def test_what_has_no_sample_is_none_and_not_zero(name: str):
    samples = parse_samples(TEXT)
    assert samples.value(name) is None
    assert samples.values(name, by="ModelName") == {}
    assert samples.histogram(name) is None


def test_a_histogram():
    histogram = parse_samples(TEXT).histogram("marquee_queue_seconds", ModelName="chat")
    assert histogram == Histogram((0.1, 0.5, math.inf), (6, 7, 8), 1.5)
    assert (histogram.count, histogram.mean) == (8, 1.5 / 8)


def test_increase_of_a_counter_survives_a_restart_of_the_server():
    later = parse_samples(TEXT)
    earlier = parse_samples(TEXT.replace('status="ok",Hostname="vm",} 8.0', 'status="ok",Hostname="vm",} 3.0'))
    assert later.increase(earlier, "marquee_requests_total", ModelName="chat") == 5
    assert earlier.increase(later, "marquee_requests_total", ModelName="chat") == 5, "all five that the new server has counted"
    assert later.increase(earlier, "no_such_metric") == 0


@pytest.mark.parametrize("text", ["", "<html>hello</html>", '{"code": 404}', "hello world", "name value"])
def test_what_is_not_metrics(text: str):
    with pytest.raises(ValueError):
        parse_samples(text)


@given(st.lists(seconds), st.lists(seconds))
def test_what_grew_is_what_was_observed_meanwhile(before: list[float], meanwhile: list[float]):
    grown = observed(before + meanwhile).since(observed(before))
    assert grown.counts == observed(meanwhile).counts
    assert grown.sum == pytest.approx(sum(meanwhile), abs=1e-9)


def test_after_a_restart_everything_is_new():
    fresh = observed([0.5])
    assert fresh.since(observed([0.5, 0.5])) == fresh.since(None) == fresh


@given(st.lists(seconds, min_size=1), st.floats(0.0, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(observations: list[float], share: float):
    true = sorted(observations)[max(math.ceil(share * len(observations)) - 1, 0)]
    lower, upper = next((low, high) for low, high in pairwise((0.0, *BOUNDS)) if true <= high)
    quantile = observed(observations).quantile(share)
    assert quantile is not None
    assert lower <= quantile <= min(upper, BOUNDS[-2])


@given(st.lists(seconds, min_size=1))
def test_quantiles_rise(observations: list[float]):
    histogram = observed(observations)
    quantiles = [histogram.quantile(step / 10) or 0.0 for step in range(11)]
    assert quantiles == sorted(quantiles)


def test_quantiles_are_linear_in_a_bucket():
    spread = Histogram((1.0, 2.0, math.inf), tuple(accumulate([0.0, 10.0, 0.0])), 15.0)
    assert [spread.quantile(share) for share in (0.1, 0.5, 1.0)] == pytest.approx([1.1, 1.5, 2.0])
    assert spread.mean == statistics.mean([1.5])
    assert observed([]).quantile(0.5) is None
    assert observed([]).mean is None


@pytest.fixture
def serve_text() -> Iterator[Callable[[str, int], str]]:
    """Return a function that answers every GET with a text and a status, at the URL that it returns."""
    servers = []

    def serve(text: str, status: int = 200) -> str:
        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/metrics"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def test_scrape(serve_text: Callable[..., str]):
    assert scrape(serve_text(TEXT)).by_name == parse_samples(TEXT).by_name


def test_errors_say_what_to_do(serve_text: Callable[..., str]):
    with pytest.raises(MetricsUnavailable, match="HTTP 404.*metrics_mode=prometheus"):
        scrape(serve_text("nothing here", 404))
    with pytest.raises(MetricsUnavailable, match="not metrics in Prometheus' text format"):
        scrape(serve_text("<html>hello</html>"))
    for url in ("http://127.0.0.1:1/metrics", "127.0.0.1:8082", "http://[::1", ""):
        with pytest.raises(MetricsUnavailable, match="is the server running"):
            scrape(url)
