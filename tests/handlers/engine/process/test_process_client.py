"""One engine in a process of its own: the client's contract, over a real socket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from process_fakes import REFUSE, EngineStarter, ScriptedHandler, continuation, end_of, has_ended, poll_until, tokens_of, wait_until

from handlers.config import EngineConfig, HandlerConfig
from handlers.engine.client import Start as SequenceStart
from handlers.engine.process.client import start_process_client
from handlers.engine.process.source import EngineSource
from handlers.errors import SHUTTING_DOWN, ConfigError, InvalidRequest, Overloaded, Unavailable
from handlers.requests import SamplingParams

ENDLESS = SamplingParams(max_tokens=10**6)
SHORT = SamplingParams(max_tokens=5)


def test_tokens_come_in_order_and_the_end_once(start: EngineStarter) -> None:
    client = start()
    for name in "abc":
        client.add(name, [1, ord(name)], SHORT)
    events = poll_until(client, has_ended(*"abc"))
    for name in "abc":
        assert tokens_of(events, name) == continuation([1, ord(name)], 5)
        assert end_of(events, name).start == SequenceStart(0.5, 3)
    assert client.poll(0) == []


def test_events_of_a_sequence_are_joined_until_polled(start: EngineStarter) -> None:
    client = start()
    client.add("a", [1], SHORT)
    assert client.drain(20)
    (event,) = client.poll(0)
    assert (list(event.token_ids), event.finish_reason) == (continuation([1], 5), "length")


def test_the_limits_are_the_engines_own_and_hold_before_anything_is_sent(start: EngineStarter) -> None:
    client = start(max_running=1, max_waiting=1, max_model_len=50)
    assert (client.max_model_len, client.limits.max_waiting) == (50, 1)
    for prompt in ([], [1] * 50, [10**6]):
        with pytest.raises(InvalidRequest):
            client.add("bad", prompt, SHORT)
    client.add("a", [1], ENDLESS)
    client.add("b", [1], ENDLESS)
    with pytest.raises(Overloaded, match="2 places"):
        client.check_room()
    with pytest.raises(Overloaded, match="2 places"):
        client.add("c", [1], SHORT)
    with pytest.raises(ValueError, match="'a'"):
        client.add("a", [1], SHORT)


def test_a_cancelled_sequence_ends_and_makes_room(start: EngineStarter) -> None:
    client = start(max_running=1, max_waiting=0)
    client.add("a", [1], ENDLESS)
    poll_until(client, lambda events: bool(events))
    client.cancel("a")
    client.cancel("unknown")
    assert end_of(poll_until(client, has_ended("a")), "a").finish_reason == "cancelled"
    client.add("b", [1], SHORT)
    poll_until(client, has_ended("b"))


def test_what_only_the_engine_refuses_ends_with_an_error(start: EngineStarter) -> None:
    client = start()
    client.add("a", [REFUSE], SHORT)
    assert end_of(poll_until(client, has_ended("a")), "a").error == "not this one"
    client.add("b", [1], SHORT)
    poll_until(client, has_ended("b"))


def test_statistics_come_from_the_engine(start: EngineStarter) -> None:
    client = start()
    client.add("a", [1], SamplingParams(max_tokens=10))
    poll_until(client, has_ended("a"))
    wait_until(lambda: client.stats().generated_tokens == 10)
    assert client.stats().steps >= 10


def test_an_engine_that_nobody_watches_is_asked_for_nothing(start: EngineStarter) -> None:
    client = start()
    client.add("a", [1], ENDLESS)
    poll_until(client, lambda events: bool(events))

    def is_quiet() -> bool:
        steps = client.stats().steps
        threading.Event().wait(0.5)
        return client.stats().steps == steps

    wait_until(is_quiet)
    client.poll(0)
    poll_until(client, lambda events: bool(events))


def test_draining_refuses_new_work_and_finishes_the_old(start: EngineStarter) -> None:
    client = start()
    client.add("a", [1], SamplingParams(max_tokens=100))
    assert client.drain(20)
    with pytest.raises(Unavailable):
        client.check_room()
    with pytest.raises(Unavailable):
        client.add("b", [1], SHORT)
    assert len(tokens_of(client.poll(0), "a")) == 100


def test_draining_gives_up_in_time(start: EngineStarter) -> None:
    client = start()
    client.add("a", [1], ENDLESS)
    assert not client.drain(0.05)


def test_closing_ends_live_sequences_and_the_process(start: EngineStarter) -> None:
    client = start()
    (replica,) = client.replicas()
    client.add("a", [1], ENDLESS)
    client.close()
    client.close()
    event = end_of(client.poll(5), "a")
    assert (event.finish_reason, event.error) == ("error", SHUTTING_DOWN)
    with pytest.raises(Unavailable):
        client.add("b", [1], SHORT)
    assert replica.pid not in start.processes()


def test_closing_wakes_a_poll(start: EngineStarter) -> None:
    client = start()
    poller = threading.Thread(target=client.poll, args=(60,))
    poller.start()
    client.close()
    poller.join(10)
    assert not poller.is_alive()


def test_many_threads_at_once_lose_nothing(start: EngineStarter) -> None:
    client = start(max_running=64, max_waiting=200)

    def submit(worker: int) -> None:
        for index in range(50):
            client.add(f"{worker}-{index}", [worker, index], SHORT)

    threads = [threading.Thread(target=submit, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    names = [f"{worker}-{index}" for worker in range(4) for index in range(50)]
    events = poll_until(client, has_ended(*names))
    for worker in range(4):
        for index in range(50):
            assert tokens_of(events, f"{worker}-{index}") == continuation([worker, index], 5)


def test_large_prompts_pass_through_a_small_socket(start: EngineStarter) -> None:
    client = start(max_model_len=200_000)
    for index in range(8):
        client.add(f"{index}", [index] * 150_000, SHORT)
    events = poll_until(client, has_ended(*map(str, range(8))))
    for index in range(8):
        assert tokens_of(events, f"{index}") == continuation([index] * 150_000, 5)


class TestLoading:
    @pytest.mark.parametrize(
        ("problem", "error", "message"),
        [
            ("misconfigured", ConfigError, r"^handler\.engine\.max_model_len is 7, but that is too long$"),
            ("broken", RuntimeError, "KeyError: 'secret'"),
            ("fatal", RuntimeError, r"has ended: killed by SIGKILL, as the kernel kills when memory runs out"),
        ],
    )
    @pytest.mark.parametrize("replicas", [1, 2])
    def test_a_failure_comes_back_as_such(
        self, start: EngineStarter, tmp_path: Path, problem: str, error: type[Exception], message: str, replicas: int
    ) -> None:
        (tmp_path / problem).touch()
        with pytest.raises(error, match=message):
            start(replicas=replicas)
        assert not start.processes()

    def test_the_engine_gets_the_handlers_configuration(self, tmp_path: Path) -> None:
        config = HandlerConfig(engine=EngineConfig(max_model_len=77, kv_memory_gib=0.1, num_threads=3))
        described = json.dumps(asdict(EngineSource.of(ScriptedHandler(tmp_path, config=config))))
        assert EngineSource(**json.loads(described)).build().max_model_len == 77

    def test_a_class_that_cannot_be_imported_is_refused(self) -> None:
        class Local(ScriptedHandler):
            pass

        with pytest.raises(ConfigError, match=r"Local cannot be imported .* handler\.engine\.process: false"):
            start_process_client(Local())


ORPHAN_MAKER = """
import os, sys
from pathlib import Path
from process_fakes import ScriptedHandler
from handlers.engine.process.client import start_process_client
from handlers.requests import SamplingParams
if sys.argv[2] == "loading":
    from handlers.engine.process.launch import EngineProcess
    from handlers.engine.process.placement import Placement
    from handlers.engine.process.source import EngineSource
    pids = [EngineProcess(EngineSource.of(ScriptedHandler(Path(sys.argv[1]))), Placement()).pid]
else:
    client = start_process_client(ScriptedHandler.configured(Path(sys.argv[1]), replicas=2))
    client.add("a", [1], SamplingParams(max_tokens=10**6))
    pids = [replica.pid for replica in client.replicas()]
print(*pids, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("stage", ["loading", "serving"])
def test_engines_die_with_their_worker(tmp_path: Path, stage: str) -> None:
    if stage == "loading":
        (tmp_path / "endless").touch()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    worker = subprocess.Popen([sys.executable, "-c", ORPHAN_MAKER, str(tmp_path), stage], text=True, env=environment, **pipes)
    assert worker.stdout is not None
    pids = [int(word) for word in worker.stdout.readline().split()]
    assert len(pids) == {"loading": 1, "serving": 2}[stage]
    worker.kill()
    worker.communicate()
    wait_until(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie, which only its new parent can remove."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
