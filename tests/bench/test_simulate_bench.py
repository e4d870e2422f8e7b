"""The instruments of the simulator's benchmark: a server that follows a timing model is found to do so, and clients come on time."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from archiver.plan.simulation.continuous import ContinuousReplay, ContinuousSettings
from archiver.plan.simulation.static_batching import StaticReplay, StaticSettings
from archiver.plan.simulation.timing import TimingModel
from archiver.plan.simulation.trace import TraceRequest
from tests.bench.load import Answer, Predictions, Run
from tests.bench.open_loop import run_open_loop
from tests.bench.others import Moment
from tests.bench.step_times import StepTimer
from tests.bench.workload import Job

TRUE = TimingModel(0.008, per_decode_s=0.0004, per_prompt_token_s=0.0002, request_overhead_s=0.005)
CONTINUOUS = ContinuousSettings(num_blocks=4096, max_model_len=1024)
STATIC = StaticSettings(8, 0.06)


class Letters:
    """A tokenizer: a letter is a token."""

    def encode(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]

    def decode(self, token_ids: list[int]) -> str:
        return "".join(map(chr, token_ids))


@pytest.mark.parametrize(("replay", "settings", "wait_s"), [(ContinuousReplay, CONTINUOUS, 0.0), (StaticReplay, STATIC, 0.06)])
def test_the_steps_of_a_server_are_found_from_outside(replay, settings, wait_s):
    def run(jobs: Sequence[Job], streams: int) -> Run:
        assert len(jobs) == streams
        trace = [TraceRequest(0.0, len(job.prompt), job.num_output_tokens) for job in jobs]
        answers = replay(trace, TRUE, settings).run().answers
        return Run(streams, tuple(Answer(each.arrival_s, each.end_s) for each in answers), 0.0)

    measured = StepTimer(run, Letters(), wait_s).measure((4, 8), "seed")
    assert measured.request_overhead_s == pytest.approx(TRUE.request_overhead_s, abs=0.002)  # the short prompt is taken for a decode
    assert [step.num_decodes for step in measured.steps] == [1, 4, 8, 0]
    for step in measured.steps:
        assert step.seconds == pytest.approx(TRUE.step_s(step.num_decodes, step.num_prompt_tokens, step.num_context_tokens), rel=0.1)


def test_a_failed_request_is_no_measurement():
    timer = StepTimer(lambda jobs, streams: Run(streams, (Answer(0.0, 1.0, error="429: full"),), 0.0), Letters())
    with pytest.raises(RuntimeError, match="429: full"):
        timer.measure((4,), "seed")


def test_clients_come_at_their_times_and_do_not_wait_for_each_other():
    """The server answers nobody until the last has come; a failure is an answer, too."""
    everybody = threading.Barrier(3)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            everybody.wait(timeout=30)
            self.send_response(503 if body == b"refused" else 200)
            self.end_headers()
            self.wfile.write(body + b" and so on")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    jobs = [Job("late", 2), Job("refused", 2), Job("early", 2)]
    answers = run_open_loop(Predictions(f"http://127.0.0.1:{server.server_port}/"), jobs, [0.3, 0.2, 0.0])
    server.shutdown()
    server.server_close()
    assert [answer.text for answer in answers] == [" and so on", "", " and so on"]
    assert (answers[1].error or "").startswith("503")
    offsets_s = [answer.started_s - answers[2].started_s for answer in answers]
    assert offsets_s == pytest.approx([0.3, 0.2, 0.0])
    assert all(answer.ended_s - answers[2].started_s >= 0.3 for answer in answers)


def test_what_this_process_does_is_not_the_others():
    """A share of the machine, never below nothing; what this thread burns meanwhile is its own."""
    begin = Moment.now()
    until_s = time.thread_time() + 0.05
    while time.thread_time() < until_s:
        pass
    now = Moment.now()
    assert now.own_s - begin.own_s >= 0.03  # the clock of processes has coarse ticks
    assert 0.0 <= begin.others_share() <= 1.1
