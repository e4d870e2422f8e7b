"""The engine in its thread: events in order, pauses when nobody watches, and nothing that stops it for good."""

import threading
import time

import pytest
from engine_fakes import FakeRunner, GatedRunner, continuation

from handlers.engine.engine import CRASHED, Engine
from handlers.engine.thread import ThreadClient
from handlers.errors import InvalidRequest, Overloaded, Unavailable
from handlers.requests import SamplingParams

ENDLESS = SamplingParams(max_tokens=10**6, temperature=0.0, ignore_eos=True)
SHORT = SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True)
PATIENCE_S = 20.0


@pytest.fixture
def start():
    clients = []

    def start(runner=None, times=None, **options) -> ThreadClient:
        options = {"max_running": 4, "max_waiting": 2, "prefill_chunk_tokens": 8, **options}
        client = ThreadClient(Engine(runner or FakeRunner(num_blocks=100_000), **options), **(times or {}))
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.close(timeout_s=0.1)


def poll_until(client: ThreadClient, is_done) -> list:
    """Poll until ``is_done(events so far)``."""
    events, deadline_s = [], time.monotonic() + PATIENCE_S
    while not is_done(events):
        assert time.monotonic() < deadline_s, "nothing happened"
        events += client.poll(0.05)
    return events


def last_of(events, sequence_id):
    [last] = [event for event in events if event.sequence_id == sequence_id and event.finish_reason]
    return last


def has_ended(*sequence_ids):
    return lambda events: {event.sequence_id for event in events if event.finish_reason} >= set(sequence_ids)


def wait_until(condition) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.002)


def test_tokens_arrive_in_order_and_one_event_a_sequence(start):
    client = start()
    for name in "abc":
        client.add(name, [1, 2, ord(name) % 32], SHORT)
    events = poll_until(client, has_ended(*"abc"))
    for name in "abc":
        token_ids = [token_id for event in events if event.sequence_id == name for token_id in event.token_ids]
        assert token_ids == continuation([1, 2, ord(name) % 32], 6, frozenset())
        assert last_of(events, name).finish_reason == "length"


def test_events_of_a_sequence_are_joined_until_polled(start):
    client = start()
    client.add("a", [1], SHORT)
    wait_until(lambda: client.stats().generated_tokens == 3)
    [event] = client.poll(0)
    assert (list(event.token_ids), event.finish_reason) == (continuation([1], 4, frozenset()), "length")
    assert client.poll(0) == []


def test_log_probabilities_and_how_it_began_survive_the_joining(start):
    client = start()
    client.add("a", [1], SamplingParams(max_tokens=3, temperature=0.0, ignore_eos=True, logprobs=0))
    wait_until(lambda: client.stats().generated_tokens == 3)
    [event] = client.poll(0)
    assert tuple(logprob.token_id for logprob in event.logprobs) == event.token_ids
    assert event.start is not None


def test_it_offers_the_limits_of_its_engine(start):
    client = start(max_running=3, max_queued_tokens=50)
    assert (client.limits.max_running, client.limits.max_queued_tokens) == (3, 50)
    assert client.max_model_len == client.limits.max_model_len == 400_000


def test_too_many_queued_tokens_are_an_overload(start):
    runner = GatedRunner()
    client = start(runner, max_running=1, max_queued_tokens=10)
    client.add("long", [1] * 20, ENDLESS)
    with pytest.raises(Overloaded, match="more than 10"):
        client.add("refused", [1], SHORT)
    for _ in range(3):  # the steps that read the prompt
        runner.entered.acquire()
        runner.gate.release()
    poll_until(client, lambda events: events)
    client.add("admitted", [1] * 10, SHORT)
    with pytest.raises(Overloaded):
        client.add("refused again", [1], SHORT)


def test_an_urgent_sequence_goes_before_those_that_wait(start):
    runner = GatedRunner()
    client = start(runner, max_running=1)
    client.add("running", [1], SamplingParams(max_tokens=1, temperature=0.0))
    runner.entered.acquire()
    client.add("waiting", [1], SHORT)
    client.add("urgent", [1], SHORT, priority=-1)
    for _ in range(10):
        runner.gate.release()
    poll_until(client, has_ended("waiting"))
    order = list(dict.fromkeys(chunk.sequence_id for plan in runner.plans for chunk in plan.chunks))
    assert order == ["running", "urgent", "waiting"]


def test_who_has_waited_too_long_expires_even_while_nobody_polls(start):
    client = start(max_running=1, times={"idle_pause_s": 0.02})
    client.add("running", [1], ENDLESS)
    client.add("hurried", [2], SHORT, max_queue_s=0.1)
    wait_until(lambda: client.stats().waiting == 0)
    event = last_of(client.poll(0), "hurried")
    assert (event.finish_reason, event.token_ids) == ("expired", ())


def test_statistics_add_up(start):
    client = start()
    client.add("a", [1], SHORT)
    poll_until(client, has_ended("a"))
    stats = client.stats()
    assert (stats.running, stats.waiting, stats.blocks_used, stats.blocks_total) == (0, 0, 0, 100_000)
    assert (stats.steps, stats.generated_tokens, stats.queried_tokens) == (3, 3, 1)
    assert 0 < stats.step_ms_p50 <= stats.step_ms_p99


def test_a_full_waiting_room_is_an_overload_and_a_bad_prompt_is_not_admitted(start):
    client = start(GatedRunner(), max_running=2, max_waiting=1)
    for name in "abc":
        client.add(name, [1], SHORT)
    with pytest.raises(Overloaded, match="3 places"):
        client.add("d", [1], SHORT)
    with pytest.raises(InvalidRequest):
        client.add("e", [], SHORT)
    assert client.stats().running + client.stats().waiting == 3


def test_an_id_cannot_be_used_twice_at_once(start):
    client = start()
    client.add("a", [1], ENDLESS)
    with pytest.raises(ValueError, match="'a'"):
        client.add("a", [1], SHORT)


def test_cancelling_ends_a_sequence_within_one_step(start):
    runner = GatedRunner()
    client = start(runner, max_running=1)
    client.add("running", [1], ENDLESS)
    client.add("waiting", [1], ENDLESS)
    runner.entered.acquire()
    client.cancel("running")
    client.cancel("waiting")
    client.cancel("unknown")
    runner.gate.release()  # the step under way is the last
    events = poll_until(client, has_ended("running", "waiting"))
    assert {event.finish_reason for event in events if event.finish_reason} == {"cancelled"}
    client.cancel("running")
    assert client.poll(0) == []
    assert runner.num_steps == 1


def test_a_crashed_step_fails_its_sequences_with_a_message_and_the_next_one_runs(start, caplog):
    client = start(FakeRunner(failures={2: RuntimeError("secret detail")}))
    client.add("a", [1], ENDLESS)
    event = last_of(poll_until(client, has_ended("a")), "a")
    assert (event.finish_reason, event.error) == ("error", CRASHED)
    assert "secret detail" in caplog.text
    client.add("b", [1], SHORT)
    assert last_of(poll_until(client, has_ended("b")), "b").finish_reason == "length"


def is_paused(client: ThreadClient, for_s: float = 0.1) -> bool:
    steps = client.stats().steps
    time.sleep(for_s)
    return client.stats().steps == steps


def test_it_pauses_when_nobody_polls_and_goes_on_with_the_next_poll(start):
    client = start(times={"idle_pause_s": 0.05})
    client.add("a", [1], ENDLESS)
    wait_until(lambda: is_paused(client))
    steps = client.stats().steps
    assert steps > 0
    client.poll(0)  # what was waiting to be told
    assert client.poll(PATIENCE_S)[0].finish_reason is None
    assert client.stats().steps > steps


def test_a_poll_in_progress_is_presence_however_long_it_takes(start):
    runner = GatedRunner()
    client = start(runner, times={"idle_pause_s": 0.02, "abandon_after_s": 0.05})
    client.add("a", [1], SamplingParams(max_tokens=2, temperature=0.0, ignore_eos=True))
    polled = []
    poller = threading.Thread(target=lambda: polled.extend(client.poll(PATIENCE_S)))
    poller.start()
    runner.entered.acquire()
    time.sleep(0.1)  # longer than both limits, with one poll in progress
    runner.gate.release()
    poller.join()
    assert [event.finish_reason for event in polled] == [None]


def test_after_a_long_silence_everything_is_cancelled(start):
    client = start(max_waiting=4, times={"idle_pause_s": 0.02, "abandon_after_s": 0.1})
    for name in "abcdef":
        client.add(name, [1], ENDLESS)
    wait_until(lambda: client.stats().running + client.stats().waiting == 0)
    assert {event.finish_reason for event in client.poll(0)} == {"cancelled"}
    client.add("g", [1], SHORT)
    assert last_of(poll_until(client, has_ended("g")), "g").finish_reason == "length"


def test_cancelling_works_while_paused_and_does_not_wake_the_others(start):
    runner = FakeRunner(num_blocks=100_000)
    client = start(runner, times={"idle_pause_s": 0.02})
    client.add("a", [1], ENDLESS)
    client.add("b", [1], ENDLESS)
    wait_until(lambda: is_paused(client))
    steps = runner.num_steps
    client.cancel("a")
    wait_until(lambda: client.stats().running == 1)
    assert runner.num_steps == steps


def test_adding_ends_a_pause(start):
    client = start(times={"idle_pause_s": 0.05})
    client.add("a", [1], ENDLESS)
    wait_until(lambda: is_paused(client))
    client.add("b", [1], SHORT)
    wait_until(lambda: client.stats().running == 1 and client.stats().waiting == 0)
    assert "b" in {event.sequence_id for event in client.poll(0) if event.finish_reason == "length"}


def test_draining_refuses_new_work_and_finishes_the_old_without_polls(start):
    client = start(times={"idle_pause_s": 0.01})
    client.add("a", [1], SamplingParams(max_tokens=2000, temperature=0.0, ignore_eos=True))
    assert client.drain(PATIENCE_S)
    with pytest.raises(Unavailable):
        client.check_room()
    with pytest.raises(Unavailable):
        client.add("b", [1], SHORT)
    [event] = client.poll(0)
    assert (len(event.token_ids), event.finish_reason) == (2000, "length")


def test_draining_gives_up_in_time(start):
    client = start(GatedRunner())
    client.add("a", [1], ENDLESS)
    assert not client.drain(0.05)


def test_closing_ends_live_sequences_and_the_thread(start):
    client = start()
    client.add("a", [1], ENDLESS)
    client.poll(PATIENCE_S)
    client.close()
    client.close()
    event = last_of(client.poll(PATIENCE_S), "a")
    assert (event.finish_reason, event.error) == ("error", "the server is shutting down")
    with pytest.raises(Unavailable):
        client.add("b", [1], SHORT)
    assert not any(thread is client._thread for thread in threading.enumerate())


def test_closing_does_not_wait_for_a_step_that_hangs(start):
    runner = GatedRunner()
    client = start(runner)
    client.add("a", [1], ENDLESS)
    runner.entered.acquire()
    client.close(timeout_s=0.05)
    assert last_of(client.poll(0), "a").finish_reason == "error"
    runner.gate.release()
    client._thread.join(PATIENCE_S)
    assert client.poll(0) == []  # what the step found comes too late


def test_many_threads_at_once_lose_nothing(start):
    client = start(max_running=8, max_waiting=1000)
    names = [f"{worker}-{i}" for worker in range(4) for i in range(50)]

    def submit(worker: int) -> None:
        for i in range(50):
            client.add(f"{worker}-{i}", [worker, i % 32], SHORT)

    threads = [threading.Thread(target=submit, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    events = poll_until(client, has_ended(*names))
    for worker in range(4):
        for i in range(50):
            token_ids = [token for event in events if event.sequence_id == f"{worker}-{i}" for token in event.token_ids]
            assert token_ids == continuation([worker, i % 32], 5, frozenset())
