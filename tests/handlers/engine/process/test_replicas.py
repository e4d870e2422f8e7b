"""Several engine processes: they die, hang, are restarted and change in number while others serve."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from process_fakes import CRASH, DIE, HANG, EngineStarter, continuation, end_of, has_ended, poll_until, tokens_of, wait_until

from handlers.engine.process.client import ProcessClient
from handlers.engine.process.dispatcher import LOST
from handlers.engine.process.placement import usable_cores
from handlers.requests import SamplingParams

ENDLESS = SamplingParams(max_tokens=10**6)
LONG = SamplingParams(max_tokens=200)
SHORT = SamplingParams(max_tokens=5)


def states(client: ProcessClient) -> list[str]:
    return [replica.state for replica in client.replicas()]


def holder_of(client: ProcessClient, name: str) -> int:
    """The process that works on a sequence."""
    return next(replica.process.pid for replica in client._fleet.replicas.values() if name in replica.sequences)


def begin(client: ProcessClient, *names: str) -> None:
    """Add endless sequences and wait until each has begun."""
    for index, name in enumerate(names):
        client.add(name, [index], ENDLESS)
    heard: set[str] = set()
    poll_until(client, lambda events: heard.update(event.sequence_id for event in events) or heard >= set(names))


def test_work_is_spread_over_replicas(start: EngineStarter) -> None:
    client = start(replicas=2)
    begin(client, "a", "b", "c", "d")
    assert [replica.sequences for replica in client.replicas()] == [2, 2]


def test_a_killed_engine_costs_only_what_it_had_begun(start: EngineStarter) -> None:
    client = start(replicas=2)
    begin(client, "a", "b")
    os.kill(holder_of(client, "a"), signal.SIGKILL)
    event = end_of(poll_until(client, has_ended("a")), "a")
    assert (event.finish_reason, event.error) == ("error", LOST)
    client.add("c", [1], SHORT)
    assert tokens_of(poll_until(client, has_ended("c")), "c") == continuation([1], 5)
    client.cancel("b")
    assert end_of(poll_until(client, has_ended("b")), "b").finish_reason == "cancelled"
    wait_until(lambda: states(client) == ["ready", "ready"])


def test_what_was_not_begun_is_done_after_the_restart(start: EngineStarter) -> None:
    client = start()
    (replica,) = client.replicas()
    os.kill(replica.pid, signal.SIGSTOP)
    for name in "abc":
        client.add(name, [ord(name)], SHORT)
    os.kill(replica.pid, signal.SIGKILL)
    events = poll_until(client, has_ended(*"abc"))
    for name in "abc":
        assert tokens_of(events, name) == continuation([ord(name)], 5)


def test_a_request_that_kills_its_engine_is_not_tried_for_ever(start: EngineStarter) -> None:
    client = start(replicas=3)
    client.add("poison", [DIE], SHORT)
    assert end_of(poll_until(client, has_ended("poison")), "poison").error == LOST
    client.add("a", [1], SHORT)
    assert tokens_of(poll_until(client, has_ended("a")), "a") == continuation([1], 5)


def test_requests_that_come_while_the_engine_restarts_wait_for_it(start: EngineStarter, tmp_path: Path) -> None:
    client = start()
    (tmp_path / "slow").touch()
    os.kill(client.replicas()[0].pid, signal.SIGKILL)
    wait_until(lambda: states(client) != ["ready"])
    client.add("a", [1], SHORT)
    assert tokens_of(poll_until(client, has_ended("a")), "a") == continuation([1], 5)


@pytest.mark.parametrize("how", ["stopped", "without steps"])
def test_a_hung_engine_is_replaced(start: EngineStarter, how: str) -> None:
    client = start(replicas=2, step_timeout_s=2.0)
    begin(client, "a", "b")
    hung = holder_of(client, "a")
    if how == "stopped":
        os.kill(hung, signal.SIGSTOP)
    else:
        client._dispatcher.live["a"].replica.process.send(_order_to_hang())  # type: ignore[union-attr]
    event = end_of(poll_until(client, has_ended("a")), "a")
    assert event.error == LOST
    wait_until(lambda: states(client) == ["ready", "ready"])
    assert hung not in [replica.pid for replica in client.replicas()]
    assert client.poll(1), "the other one has not noticed"


def _order_to_hang() -> object:
    from handlers.engine.process.protocol import Add

    return Add("hang", [HANG], SHORT)


def test_an_engine_that_nobody_watches_is_not_taken_for_hung(start: EngineStarter) -> None:
    client = start(step_timeout_s=1.0)
    begin(client, "a")
    (before,) = client.replicas()
    time.sleep(2.0)  # twice as long as a hung engine would live
    assert [replica.pid for replica in client.replicas()] == [before.pid]
    client.poll(0)
    assert client.poll(5)


def test_an_engine_that_fails_as_a_whole_is_replaced(start: EngineStarter) -> None:
    client = start()
    client.add("a", [CRASH], SamplingParams(max_tokens=2))
    assert end_of(poll_until(client, has_ended("a")), "a").error == LOST
    client.add("b", [1], SHORT)
    poll_until(client, has_ended("b"))


def test_a_client_that_is_not_polled_for_a_while_loses_nothing(start: EngineStarter) -> None:
    client = start()
    client.add("a", [1], SamplingParams(max_tokens=800))
    time.sleep(1.0)
    events = poll_until(client, has_ended("a"))
    assert tokens_of(events, "a") == continuation([1], 800)


def test_adding_never_waits_for_an_engine_that_does_not_read(start: EngineStarter) -> None:
    client = start(max_model_len=200_000)
    pid = client.replicas()[0].pid
    os.kill(pid, signal.SIGSTOP)
    started_s = time.monotonic()
    for index in range(10):
        client.add(f"{index}", [1] * 100_000, SHORT)
    assert time.monotonic() - started_s < 5
    assert client.poll(0) == []
    os.kill(pid, signal.SIGCONT)
    poll_until(client, has_ended(*map(str, range(10))))


class TestScaling:
    def test_up_and_down_while_serving(self, start: EngineStarter) -> None:
        client = start()
        begin(client, "a")
        first = holder_of(client, "a")
        client.scale(2)  # the first one had all cores to itself
        wait_until(lambda: states(client) == ["draining", "ready", "ready"])
        begin(client, "b", "c")
        assert len({holder_of(client, name) for name in "abc"}) == 3
        client.cancel("a")
        poll_until(client, has_ended("a"))
        wait_until(lambda: states(client) == ["ready", "ready"])
        wait_until(lambda: first not in start.processes())

        client.scale(1)
        for name in "bc":
            assert client.poll(5), "someone is not served"
            client.cancel(name)
        poll_until(client, has_ended("b", "c"))
        wait_until(lambda: states(client) == ["ready"])
        wait_until(lambda: len(start.processes()) == 1)
        client.add("d", [1], SHORT)
        poll_until(client, has_ended("d"))

    def test_what_was_to_go_may_stay(self, start: EngineStarter) -> None:
        client = start(replicas=2)
        begin(client, "a", "b")
        pids = [replica.pid for replica in client.replicas()]
        client.scale(1)
        client.scale(2)
        wait_until(lambda: states(client) == ["ready", "ready"])
        assert [replica.pid for replica in client.replicas()] == pids

    def test_at_least_one_remains(self, start: EngineStarter) -> None:
        client = start()
        with pytest.raises(ValueError, match="at least one"):
            client.scale(0)


@pytest.mark.skipif(len(usable_cores()) < 2, reason="needs two cores")
def test_each_of_two_replicas_has_its_share_of_the_cores(start: EngineStarter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    client = start(replicas=2)
    shares = [os.sched_getaffinity(replica.pid) for replica in client.replicas()]
    assert shares[0] | shares[1] == os.sched_getaffinity(0)
    assert not shares[0] & shares[1]


def test_restarts_leak_nothing(start: EngineStarter) -> None:
    client = start(replicas=2)

    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    before = open_files(), threading.active_count()
    for round_ in range(2):
        for replica in client.replicas():
            os.kill(replica.pid, signal.SIGKILL)
        wait_until(lambda: "ready" not in states(client))
        client.add(f"{round_}", [1], LONG)
        wait_until(lambda: states(client) == ["ready", "ready"])
        poll_until(client, has_ended(f"{round_}"))
    wait_until(lambda: len(start.processes()) == 2)
    assert (open_files(), threading.active_count()) == before
