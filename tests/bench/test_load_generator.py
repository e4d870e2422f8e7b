"""The load generator against a server that does what it is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.figures import Figures, Spread, Times, summarise
from tests.bench.load import Answer, Completions, Predictions, Run, run_load
from tests.bench.workload import Job, Lengths, Workload


class Letters:
    """A tokenizer: a letter is a token."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))


@dataclass
class Seen:
    """What the server saw: prompts in their order, and how many clients at once at most."""

    prompts: list[str] = field(default_factory=list)
    most_clients: int = 0
    num_clients: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class FakeServer:
    url: str
    seen: Seen


@pytest.fixture
def server() -> Iterator[FakeServer]:
    seen = Seen()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with seen.lock:
                seen.num_clients += 1
                seen.most_clients = max(seen.most_clients, seen.num_clients)
            reply = self._complete(json.loads(body)) if self.path.endswith("/completions") else body + b" and so on"
            with seen.lock:
                seen.num_clients -= 1
            self.send_response(500 if b"fail" in body else 200)
            self.end_headers()
            self.wfile.write(reply)

        def _complete(self, body: dict[str, object]) -> bytes:
            seen.prompts.append(str(body["prompt"]))
            num_tokens = 1 if body["prompt"] == "short" else body["max_tokens"]
            events = [
                {"choices": [{"text": f"{body['prompt']}: word "}]},
                {"choices": [{"text": ""}]},
                {"choices": [], "usage": {"completion_tokens": num_tokens}},
            ]
            if body["prompt"] == "garbled":
                return b"data: {no JSON}\n\n"
            return (
                b": still busy\n\n" + b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
            )

        def log_message(self, format: str, *args: object) -> None:
            pass

    fake = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=fake.serve_forever)
    thread.start()
    yield FakeServer(f"http://127.0.0.1:{fake.server_port}", seen)
    fake.shutdown()
    thread.join()
    fake.server_close()


def test_every_job_is_done_once_by_no_more_clients_than_asked_for(server: FakeServer) -> None:
    jobs = [Job(f"job {number}", 5) for number in range(40)]
    run = run_load(Completions(server.url, "llm"), jobs, streams=4)
    assert sorted(server.seen.prompts) == sorted(job.prompt for job in jobs)
    assert 1 <= server.seen.most_clients <= 4
    assert [answer.num_tokens for answer in run.answers] == [5] * 40
    assert [answer.text for answer in run.answers] == [f"{job.prompt}: word " for job in jobs]
    assert all(answer.started_s < answer.text_times_s[0] <= answer.ended_s for answer in run.answers)


@pytest.mark.parametrize(("prompt", "error"), [("fail", "500"), ("short", "1 tokens instead of 5"), ("garbled", "unreadable")])
def test_a_failed_request_is_an_error_and_no_token(server: FakeServer, prompt: str, error: str) -> None:
    run = run_load(Completions(server.url, "llm"), [Job(prompt, 5), Job("fine", 5)], streams=1)
    figures = Figures.of("fake", run)
    assert error in str(run.answers[0].error)
    assert (figures.num_errors, figures.num_output_tokens) == (1, 5)


def test_a_server_that_is_not_there_is_an_error() -> None:
    run = run_load(Completions("http://127.0.0.1:1", "llm"), [Job("hello", 5)], streams=1)
    assert "ConnectError" in str(run.answers[0].error)


def test_a_plain_prediction_counts_what_was_asked_for_and_its_first_text_is_its_last(server: FakeServer) -> None:
    [answer] = run_load(Predictions(f"{server.url}/predictions/textbook"), [Job("once upon a time", 7)], streams=1).answers
    assert (answer.num_tokens, answer.text_times_s, answer.error) == (7, (answer.ended_s,), None)
    assert answer.text == " and so on"


def test_servers_differ_in_what_keeps_an_answer_going() -> None:
    body = Completions("http://server/v1", "llm", {"min_tokens": 5}, {"Connection": "close"}).body(Job("hello", 5))
    assert body["json"]["min_tokens"] == body["json"]["max_tokens"] == 5
    assert "ignore_eos" not in body["json"]
    assert body["headers"] == {"Connection": "close"}


def test_figures_of_a_run() -> None:
    answers = (Answer(0.0, 1.0, (0.2, 0.4, 1.0), 5), Answer(0.5, 2.0, (0.6,), 15), Answer(0.0, 0.1, error="500"))
    figures = Figures.of("ours", Run(2, answers, client_cpu_s=0.5), rss_bytes=3 << 20)
    assert (figures.tokens_per_s, figures.num_errors, figures.client_cpu_share) == (10.0, 1, 0.25)
    assert figures.rss_mib == 3
    assert figures.first_text.p50_ms == pytest.approx(200)
    assert (figures.gap.p50_ms, figures.token.p50_ms) == (pytest.approx(600), pytest.approx(200))


def test_repeats_are_compared_with_the_run_beside_them() -> None:
    def figures(contestant: str, seconds: float) -> Figures:
        return Figures.of(contestant, Run(1, (Answer(0.0, seconds, (seconds,), 10),), 0.0))

    ours, other = summarise([figures("ours", 1.0), figures("other", 2.0), figures("ours", 2.0), figures("other", 6.0)], reference="ours")
    assert (ours.lead, other.lead) == (Spread(1.0, 1.0, 1.0), Spread(2.5, 2.0, 3.0))
    assert ours.gap_p50_ms.show() == "–"


@given(st.integers(1, 500), st.integers(0, 500), st.integers())
def test_lengths_are_in_range_and_depend_on_the_seed_alone(low: int, more: int, seed: int) -> None:
    workload = Workload(Lengths(low, low + more), Lengths.parse("3:4"))
    jobs = workload.jobs(3, str(seed), Letters())
    assert jobs == workload.jobs(3, str(seed), Letters())
    assert all(low <= len(job.prompt) <= low + more and 3 <= job.num_output_tokens <= 4 for job in jobs)


def test_another_seed_gives_other_prompts() -> None:
    first, second = (Workload(Lengths(16, 64), Lengths(1, 1)).jobs(8, seed, Letters()) for seed in ("1", "2"))
    assert not {job.prompt for job in first} & {job.prompt for job in second}


@pytest.mark.parametrize("text", ["0:4", "8:4", "x"])
def test_impossible_lengths_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Lengths.parse(text)


@given(st.lists(st.floats(0, 1e3), min_size=1))
def test_quantiles_are_of_the_values(seconds: list[float]) -> None:
    times = Times.of(seconds)
    assert times.p50_ms <= times.p99_ms
    assert {times.p50_ms, times.p99_ms} <= {1000 * value for value in seconds}
