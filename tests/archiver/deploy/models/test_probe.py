"""Probes against a real socket: what is sent, and what counts as an answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from archiver.deploy.management.status import read_status
from archiver.deploy.models.probe import TEXT_GENERATION, Probe, ProbeFailed
from archiver.errors import UsageError

SIZES = {"minWorkers": 1, "maxWorkers": 1, "batchSize": 1, "maxBatchDelay": 1, "workers": []}
BOT = read_status({"modelName": "bot", "modelVersion": "2.0", "modelUrl": "bot.mar", **SIZES}, is_default=False)


class Inference(BaseHTTPRequestHandler):
    """Answers with the statuses one after the other, and notes what it is sent."""

    statuses: ClassVar[list[int]] = []
    seen: ClassVar[list[tuple[str, str | None, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Content-Type"], body))
        answer = b"out\nof order"
        self.send_response(self.statuses.pop(0))
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def inference(remote) -> Iterator[tuple[object, type[Inference]]]:
    handler = type("Inference", (Inference,), {"statuses": [], "seen": []})
    listener = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=listener.serve_forever, args=(0.01,), daemon=True).start()
    yield replace(remote, inference_url=f"http://127.0.0.1:{listener.server_port}"), handler
    listener.shutdown()
    listener.server_close()


def test_a_version_is_asked_twice(inference):
    server, handler = inference
    handler.statuses += [200, 200]
    TEXT_GENERATION.send(server, BOT)
    body = b'{"inputs": "Hello", "parameters": {"max_new_tokens": 8}}'
    assert handler.seen == [("/predictions/bot/2.0", "application/json", body)] * 2


@pytest.mark.parametrize("statuses", [[500], [200, 429]])
def test_anything_but_success_is_a_failure(inference, statuses):
    server, handler = inference
    handler.statuses += statuses
    with pytest.raises(ProbeFailed, match=f"bot 2.0 answers the probe with {statuses[-1]}: out of order; .*--probe FILE"):
        TEXT_GENERATION.send(server, BOT)


def test_no_answer_is_a_failure(remote):
    with pytest.raises(ProbeFailed, match="bot 2.0 did not answer the probe at http://127.0.0.1:1/predictions/bot/2.0"):
        TEXT_GENERATION.send(replace(remote, inference_url="http://127.0.0.1:1"), BOT)


def test_a_probe_is_read_from_a_file(tmp_path):
    path = tmp_path / "probe"
    path.write_bytes(b'{"text": "hi"}')
    assert Probe.from_file(path) == Probe(b'{"text": "hi"}', "application/json")
    path.write_bytes(b"\x00\xff")
    assert Probe.from_file(path) == Probe(b"\x00\xff", "application/octet-stream")
    with pytest.raises(UsageError, match="--probe .*absent: cannot read it"):
        Probe.from_file(tmp_path / "absent")
