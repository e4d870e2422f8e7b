"""Clients that go away: nothing more is generated for them, and what was is counted."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import psutil
import pytest

from archiver.deploy.launch import TorchServe
from handlers.config import StreamConfig
from tests.contract.clients import PATIENCE_S, ModelClient, counter, wait_until

pytestmark = [pytest.mark.torchserve, pytest.mark.timeout(300)]

NUM_WANTED = 7500
"""What is asked for by who leaves: far more than may be generated then."""

NOTICE_S = 2.0
"""Longest time to notice a departure: a heartbeat (0.2 s), and after the last client 0.5 s to the engine's pause; the rest is patience."""

HOLD_S = StreamConfig().hold_ms / 1000
"""So long nobody looks whether the client of a plain answer is there."""


@dataclass(frozen=True)
class Totals:
    """What the metrics count for one model."""

    cancelled: float
    generated: float
    after_disconnect: float


def totals(server: TorchServe, model: str) -> Totals:
    return Totals(
        counter(server, "marquee_requests_total", model, status="cancelled"),
        counter(server, "marquee_generated_tokens_total", model),
        counter(server, "marquee_tokens_after_disconnect_total", model),
    )


def depart(client: ModelClient, *, stream: bool) -> None:
    """Ask for a long answer, and leave: a few lines into the stream, or while a plain answer is still held back."""
    body = {"prompt": "quick fox", "max_tokens": NUM_WANTED, "ignore_eos": True, "temperature": 0, "stream": stream}
    if not stream:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{client.base_url}/completions", json=body, timeout=httpx.Timeout(PATIENCE_S, read=HOLD_S / 4))
        time.sleep(HOLD_S)
        return
    with httpx.stream("POST", f"{client.base_url}/completions", json=body, timeout=PATIENCE_S) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        for _ in range(20):
            next(lines)


def most_for_nobody(client: ModelClient, *, stream: bool) -> float:
    """Return how many tokens may be generated for a client that has left."""
    bound = 100 + (NOTICE_S + (0 if stream else HOLD_S)) * tokens_per_second(client)
    assert bound < NUM_WANTED, "so fast a machine needs a longer answer"
    return bound


def tokens_per_second(client: ModelClient) -> float:
    start_s = time.monotonic()
    client.complete("quick fox", max_tokens=300, ignore_eos=True)
    return 300 / (time.monotonic() - start_s)


def wait_until_counted(server: TorchServe, client: ModelClient, before: Totals) -> None:
    def is_counted() -> bool:
        client.openai.models.list()  # The frontend tells who is left when it has something new to say.
        return totals(server, client.model).cancelled == before.cancelled + 1

    wait_until(is_counted)


@pytest.mark.parametrize("stream", [True, False])
def test_when_the_last_client_leaves_the_engine_rests(server: TorchServe, wide: ModelClient, stream: bool) -> None:
    bound = most_for_nobody(wide, stream=stream)
    before = totals(server, "wide")
    worker = psutil.Process(server.worker_pids("wide")[0])

    depart(wide, stream=stream)

    wait_until(lambda: worker.cpu_percent(interval=0.3) < 10, timeout_s=20)  # without any further request
    wait_until_counted(server, wide, before)
    after = totals(server, "wide")
    assert 0 < after.after_disconnect - before.after_disconnect < bound
    assert after.generated - before.generated < 400 + bound  # 300 to measure the speed, if they were counted late


@pytest.mark.parametrize("stream", [True, False])
def test_when_one_of_several_leaves_the_others_do_not_notice(server: TorchServe, wide: ModelClient, stream: bool) -> None:
    prompts = [f"neighbour {index}" for index in range(3)]
    alone = [wide.complete(prompt, max_tokens=800, ignore_eos=True) for prompt in prompts]
    bound = most_for_nobody(wide, stream=stream)
    before = totals(server, "wide")

    with ThreadPoolExecutor() as pool:
        neighbours = [pool.submit(wide.complete, prompt, max_tokens=800, ignore_eos=True, stream=prompt[-1] == "0") for prompt in prompts]
        depart(wide, stream=stream)
        assert [neighbour.result(PATIENCE_S) for neighbour in neighbours] == alone

    wait_until_counted(server, wide, before)
    assert totals(server, "wide").after_disconnect - before.after_disconnect < bound
