"""What is changed in TorchServe's worker process, and that another version is left alone."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ts
from ts.protocol import otf_message_handler
from ts.service import Service

from handlers.frontend import Incoming, Reply
from handlers.torchserve import TorchServeHandler
from handlers.torchserve_worker import TESTED_VERSION, adapt_worker, serve_directly
from tests.fakes import keep_worker, make_context, parse_response, predict_message

ORIGINAL = otf_message_handler._retrieve_buffer


@pytest.fixture(autouse=True)
def unchanged_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What ``adapt_worker`` changes in the process is changed back."""
    monkeypatch.setattr(otf_message_handler, "_retrieve_buffer", ORIGINAL)
    keep_worker(monkeypatch)


def context_with_times() -> tuple[Any, list[str]]:
    names: list[str] = []
    metrics = SimpleNamespace(add_time=lambda name, *args, **kwargs: names.append(name))
    return SimpleNamespace(metrics=metrics), names


def test_the_tested_version_is_the_installed_one() -> None:
    assert ts.__version__.strip() == TESTED_VERSION


def test_reads_are_buffered_and_bodies_come_as_they_are(tmp_path: Path) -> None:
    adapt_worker(make_context(TorchServeHandler, tmp_path))

    assert otf_message_handler._retrieve_buffer is not ORIGINAL
    assert os.environ["TS_DECODE_INPUT_REQUEST"] == "false"


def test_another_version_is_left_alone_with_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(ts, "__version__", "0.13.0")
    context, names = context_with_times()

    adapt_worker(context)
    context.metrics.add_time("PredictionTime", 1.0)

    assert otf_message_handler._retrieve_buffer is ORIGINAL
    assert names == ["PredictionTime"]
    assert "0.13.0 is not the tested" in caplog.text


def test_nothing_is_written_at_every_step(caplog: pytest.LogCaptureFixture) -> None:
    context, names = context_with_times()
    adapt_worker(context)

    context.metrics.add_time("PredictionTime", 1.0)
    context.metrics.add_time("AuthorsTime", 1.0)
    with caplog.at_level(logging.INFO):
        logging.info("Backend received inference at: 5")
        logging.warning("something is wrong")
        logging.getLogger("author").info("hello")

    assert names == ["AuthorsTime"]
    assert [record.message for record in caplog.records] == ["something is wrong", "hello"]


def test_requests_go_straight_to_whoever_answers_them() -> None:
    def answer(batch: list[Incoming]) -> list[Reply | None]:
        return [Reply(incoming.body or b"", more=True) if incoming.route == "echo" else None for incoming in batch]

    serve_directly(answer)
    frontend, worker = socket.socketpair()
    with frontend, worker:
        frontend.sendall(predict_message([("a", {"url_path": "echo"}, b"hello"), ("b", {}, b"x")]))
        command, batch = otf_message_handler.retrieve_msg(worker)
        answered = Service.predict(SimpleNamespace(), batch)

    assert command == b"I"
    assert [(reply.request_id, reply.body) for reply in parse_response(answered)] == [("a", b"hello")]


def test_another_version_is_not_served_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Service.predict
    monkeypatch.setattr(ts, "__version__", "0.13.0")

    serve_directly(lambda batch: [])

    assert Service.predict is original and otf_message_handler._retrieve_buffer is ORIGINAL
