"""Serve for a while: threads, files and memory stay what they were, and everything that was accepted is accounted for."""

import gc
import logging
import os
import random
import threading
import tracemalloc
from collections import Counter, deque

import pytest
from engine_fakes import VOCAB_SIZE, FakeRunner
from engine_rig import greedy

from handlers.engine.engine import Engine
from handlers.engine.thread import ThreadClient
from handlers.errors import Overloaded

MAX_GROWTH_BYTES = 300_000


class ForgetfulRunner(FakeRunner):
    """A FakeRunner that keeps no plans, and fails now and then, or has no memory."""

    def run(self, plan):
        if self.num_steps % 250 == 249:
            self.failures = {self.num_steps + 1: RuntimeError("boom") if self.num_steps % 500 == 499 else MemoryError()}
        self.plans = []
        return super().run(plan)


class Traffic:
    """Random requests against one client; counts what was accepted and how it ended."""

    def __init__(self, client: ThreadClient) -> None:
        self.client = client
        self.rng = random.Random(3)
        self.num_accepted = 0
        self.ends = Counter()
        self.recent = deque(maxlen=50)

    def run(self, num_requests: int) -> None:
        for _ in range(num_requests):
            self._add()
            if self.rng.random() < 0.1:
                self.client.cancel(self.rng.choice(self.recent))
            self._poll(0.0 if self.rng.random() < 0.9 else 0.01)
        while sum(self.ends.values()) < self.num_accepted:
            self._poll(1.0)

    def _add(self) -> None:
        prompt = [*([1] * self.rng.choice([0, 8, 16])), *(self.rng.randrange(VOCAB_SIZE) for _ in range(self.rng.randint(1, 20)))]
        name = f"{self.num_accepted}"
        try:
            self.client.add(name, prompt, greedy(self.rng.randint(1, 12)), max_queue_s=self.rng.choice([None, 0.001, 10.0]))
        except Overloaded:
            self._poll(0.01)
            return
        self.num_accepted += 1
        self.recent.append(name)

    def _poll(self, timeout_s: float) -> None:
        self.ends.update(event.finish_reason for event in self.client.poll(timeout_s) if event.finish_reason)


def settled_bytes() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.fixture
def no_log():
    """Of the injected failures, whose records pytest would keep."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("no_log")
@pytest.mark.parametrize("num_requests", [1_500, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_serving_leaves_nothing_behind(num_requests):
    engine = Engine(ForgetfulRunner(num_blocks=60), max_running=8, max_waiting=24, prefill_chunk_tokens=32)
    threads_before = threading.active_count()
    client = ThreadClient(engine)
    traffic = Traffic(client)
    tracemalloc.start()
    try:
        traffic.run(500)  # caches and pools fill
        files, memory = len(os.listdir("/proc/self/fd")), settled_bytes()
        traffic.run(num_requests)
        assert settled_bytes() - memory < MAX_GROWTH_BYTES
    finally:
        tracemalloc.stop()
        client.close()
    assert len(os.listdir("/proc/self/fd")) <= files
    assert threading.active_count() == threads_before
    assert traffic.num_accepted == sum(traffic.ends.values())
    assert {"length", "cancelled", "error"} <= traffic.ends.keys() <= {"length", "cancelled", "error", "expired"}
    assert client.stats().running == client.stats().waiting == client.stats().blocks_used == 0
    assert client.stats().out_of_memory > 0
    engine.check_integrity()
