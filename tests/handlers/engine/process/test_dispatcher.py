"""Which sequence is where: nothing is lost or answered twice, whatever happens to the engines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from handlers.engine.admission import EngineLimits
from handlers.engine.client import EngineStats, Event, Start
from handlers.engine.process.dispatcher import LOST, NOT_BACK, Dispatcher
from handlers.engine.process.fleet import Fleet
from handlers.engine.process.placement import Placement
from handlers.engine.process.protocol import Add, Cancel, Events, Hello, LoadFailed, Message, Report, Watch
from handlers.errors import Overloaded, Unavailable
from handlers.requests import SamplingParams

LIMITS = EngineLimits(100, 1000, max_running=2, max_waiting=1)
MAX_HELD = 4


class FakeProcess:
    """An EngineProcess that says what the test has put into ``said``, and remembers what it was told."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.said: list[Message] = []
        self.told: list[Message] = []
        self.is_dead = self.has_ended = False
        self.has_unsent = False

    def send(self, message: Message) -> None:
        self.told.append(message)

    def exchange(self) -> list[Message]:
        if self.is_dead:
            raise EOFError
        said, self.said = self.said, []
        return said

    def last_words(self) -> str:
        return "exit code 3"

    def end(self) -> None:
        self.has_ended = True

    def is_gone(self, timeout_s: float = 0.0) -> bool:
        return self.has_ended


def divide_cores(count: int) -> list[Placement]:
    """A machine with enough cores for one each; no place depends on how many there are."""
    return [Placement(cores=(index,)) for index in range(count)]


class Machine:
    """A dispatcher whose processes are fakes, and whose clock stands still until it is moved."""

    def __init__(self, replicas: int = 2, limits: EngineLimits = LIMITS, divide: Any = None) -> None:
        self.limits = limits
        self.now_s = 1000.0
        self.processes: list[FakeProcess] = []
        self.fleet = Fleet(self._launch, replicas, divide or divide_cores)
        self.dispatcher = Dispatcher(self.fleet)
        self.fleet.start_missing(self.now_s)

    def _launch(self, place: Placement) -> Any:
        self.processes.append(FakeProcess(len(self.processes)))
        return self.processes[-1]

    def load_all(self) -> None:
        for process in self.running():
            self.load(process)

    def load(self, process: FakeProcess) -> None:
        self.say(process, Hello(self.limits))

    def running(self) -> list[FakeProcess]:
        return [replica.process for replica in self.fleet.replicas.values()]  # type: ignore[misc]

    def say(self, process: FakeProcess, *messages: Message) -> None:
        process.said += messages
        self.dispatcher.receive(self.now_s)

    def kill(self, process: FakeProcess) -> None:
        process.is_dead = True
        self.dispatcher.receive(self.now_s)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        self.fleet.start_missing(self.now_s)
        self.dispatcher.start_held(self.now_s)

    def add(self, name: str, **more: Any) -> None:
        self.dispatcher.add(Add(name, [1, 2, ord(name[0])], SamplingParams(max_tokens=5), **more), MAX_HELD, self.now_s)

    def holder(self, name: str) -> FakeProcess:
        """The latest process that was told to start a sequence."""
        return [process for process in self.processes if any(isinstance(told, Add) and told.sequence_id == name for told in process.told)][
            -1
        ]

    def news(self) -> list[tuple[str, Any]]:
        return [(event.sequence_id, event.finish_reason or event.token_ids) for event in self.dispatcher.inbox.take_all()]


@pytest.fixture
def machine() -> Machine:
    machine = Machine()
    machine.load_all()
    return machine


def test_sequences_are_spread_and_their_events_come_back(machine: Machine) -> None:
    machine.add("a")
    machine.add("b")
    assert machine.holder("a") is not machine.holder("b")
    machine.say(machine.holder("a"), Events((Event("a", (7,)),)))
    machine.say(machine.holder("a"), Events((Event("a", (8,), "length"),)))
    machine.say(machine.holder("b"), Events((Event("a", (9,)),)))  # not one of b's
    assert machine.news() == [("a", "length")]
    assert set(machine.dispatcher.live) == {"b"}


def test_of_a_lost_replica_what_has_begun_ends_and_the_rest_moves(machine: Machine) -> None:
    for name in "abcd":
        machine.add(name)
    lost = machine.holder("a")
    theirs = [name for name in "abcd" if machine.holder(name) is lost]
    assert len(theirs) == 2
    machine.say(lost, Events((Event(theirs[0], (7,)),)))
    machine.news()
    machine.kill(lost)
    assert [(event.sequence_id, event.error) for event in machine.dispatcher.inbox.take_all()] == [(theirs[0], LOST)]
    assert machine.holder(theirs[1]) is not lost
    assert lost.has_ended


def test_what_finds_no_room_elsewhere_waits_for_the_restart() -> None:
    machine = Machine(replicas=1)
    machine.load_all()
    for name in "abc":
        machine.add(name)
    machine.kill(machine.processes[0])
    machine.add("d")
    assert machine.news() == []
    machine.pass_time(0.2)
    assert len(machine.processes) == 2
    machine.load(machine.processes[1])
    machine.pass_time(0.0)
    assert [told.sequence_id for told in machine.processes[1].told if isinstance(told, Add)] == ["a", "b", "c"]
    machine.say(machine.processes[1], Events((Event("a", (1,), "stop"),)))
    machine.pass_time(0.0)
    assert machine.holder("d") is machine.processes[1]


def test_while_no_engine_is_there_only_so_many_wait() -> None:
    machine = Machine(replicas=1)
    machine.load_all()
    machine.kill(machine.processes[0])
    for name in "abcd":
        machine.add(name)
    with pytest.raises(Unavailable):
        machine.dispatcher.check_room(MAX_HELD)
    with pytest.raises(Unavailable):
        machine.add("e")
    assert set(machine.dispatcher.live) == set("abcd")
    assert machine.dispatcher.stats().waiting == 4


def test_who_waited_for_an_engine_has_waited() -> None:
    machine = Machine(replicas=1)
    machine.load_all()
    machine.kill(machine.processes[0])
    machine.add("a")
    machine.pass_time(7.0)
    machine.load_all()
    machine.pass_time(1.0)
    machine.say(machine.holder("a"), Events((Event("a", (1,), start=Start(0.5, 0)),)))
    (event,) = machine.dispatcher.inbox.take_all()
    assert event.start == Start(8.5, 0)


def test_full_replicas_refuse_and_one_with_room_is_found(machine: Machine) -> None:
    for name in "abcdef":
        machine.dispatcher.check_room(MAX_HELD)
        machine.add(name)
    with pytest.raises(Overloaded, match="3 places"):
        machine.dispatcher.check_room(MAX_HELD)
    with pytest.raises(Overloaded, match="3 places"):
        machine.add("g")
    machine.say(machine.holder("f"), Events((Event("f", (1,), "stop"),)))
    machine.add("g")


def test_waiting_has_an_end(machine: Machine) -> None:
    for process in machine.running():
        machine.kill(process)
    machine.add("a", max_queue_s=0.5)
    machine.add("b")
    machine.now_s += 0.6
    machine.dispatcher.start_held(machine.now_s)
    assert machine.news() == [("a", "expired")]
    machine.now_s += 120
    machine.dispatcher.start_held(machine.now_s)
    assert [event.error for event in machine.dispatcher.inbox] == [NOT_BACK]


def test_time_waited_counts_after_a_move() -> None:
    machine = Machine(replicas=1)
    machine.load_all()
    machine.add("a", max_queue_s=10.0)
    machine.now_s += 4
    machine.kill(machine.processes[0])
    machine.pass_time(0.5)
    machine.load(machine.processes[1])
    machine.pass_time(0.5)
    (order,) = [told for told in machine.processes[1].told if isinstance(told, Add)]
    assert order.max_queue_s == pytest.approx(5.0)


def test_priority_decides_who_is_back_first() -> None:
    machine = Machine(replicas=1, limits=replace(LIMITS, max_running=1, max_waiting=0))
    machine.load_all()
    machine.kill(machine.processes[0])
    machine.add("late", priority=5)
    machine.add("first", priority=-1)
    machine.pass_time(0.2)
    machine.load(machine.processes[1])
    machine.pass_time(0)
    assert machine.holder("first") is machine.processes[1]


def test_a_cancelled_sequence_ends_as_cancelled_wherever_it_is(machine: Machine) -> None:
    for name in "abc":
        machine.add(name)
    machine.dispatcher.cancel("a")
    machine.dispatcher.cancel("unknown")
    lost = machine.holder("a")
    assert lost.told[-1] == Cancel("a")
    machine.kill(lost)
    assert ("a", "cancelled") in machine.news()
    for process in machine.running():
        machine.kill(process)
    machine.dispatcher.cancel("b")
    assert ("b", "cancelled") in machine.news()


def test_who_was_there_when_two_engines_were_lost_is_not_tried_again(machine: Machine) -> None:
    machine.add("a")
    for _ in range(2):
        assert machine.news() == []
        machine.kill(machine.holder("a"))
    assert [event.error for event in machine.dispatcher.inbox] == [LOST]


def test_restarts_come_after_pauses_that_grow() -> None:
    machine = Machine(replicas=1)
    starts = []
    for _ in range(12):
        machine.kill(machine.processes[-1])
        before = machine.now_s
        while len(machine.processes) == len(starts) + 1:
            machine.pass_time(0.05)
        starts.append(machine.now_s - before)
    assert starts[0] <= 0.15
    assert all(earlier <= later + 0.1 for earlier, later in zip(starts, starts[1:], strict=False))
    assert 29 < starts[-1] < 31


def test_who_lived_long_is_restarted_at_once() -> None:
    machine = Machine(replicas=1)
    for _ in range(6):
        machine.kill(machine.processes[-1])
        machine.pass_time(40)
    machine.pass_time(100)
    machine.kill(machine.processes[-1])
    num_processes = len(machine.processes)
    machine.pass_time(0.15)
    assert len(machine.processes) == num_processes + 1


def test_a_replica_without_progress_is_given_up_and_an_idle_one_is_not(machine: Machine) -> None:
    machine.add("a")
    machine.now_s += 4
    machine.say(machine.holder("a"), Report(EngineStats(running=1, steps=1)))
    machine.now_s += 4
    machine.say(machine.holder("a"), Report(EngineStats(running=1, steps=1)))
    machine.dispatcher.end_hung(5, machine.now_s)
    assert len(machine.running()) == 2
    machine.now_s += 2
    machine.dispatcher.end_hung(5, machine.now_s)
    assert len(machine.running()) == 1
    assert machine.holder("a") is machine.running()[0], "it has not begun, so it moves"
    machine.now_s += 2
    machine.fleet.excuse(machine.now_s)
    machine.now_s += 4
    machine.dispatcher.end_hung(5, machine.now_s)
    assert len(machine.running()) == 1


def test_totals_outlive_their_engine(machine: Machine) -> None:
    for process in machine.running():
        machine.say(process, Report(EngineStats(running=1, blocks_total=10, steps=5, generated_tokens=7, preemptions=2, step_ms_p50=3)))
    assert machine.dispatcher.stats() == EngineStats(
        running=2, blocks_total=20, steps=10, generated_tokens=14, preemptions=4, step_ms_p50=3
    )
    machine.kill(machine.running()[0])
    assert machine.dispatcher.stats() == EngineStats(
        running=1, blocks_total=10, steps=10, generated_tokens=14, preemptions=4, step_ms_p50=3, restarts=1
    )


def test_scaling_down_lets_work_finish(machine: Machine) -> None:
    machine.add("a")
    machine.add("b")
    machine.fleet.scale(1)
    surplus = machine.fleet.replicas[1]
    (name,) = surplus.sequences
    machine.fleet.retire_surplus()
    assert machine.fleet.state(surplus) == "draining"
    machine.add("c")
    assert "c" not in surplus.sequences
    machine.say(surplus.process, Events((Event(name, (1,), "stop"),)))  # type: ignore[arg-type]
    machine.fleet.retire_surplus()
    assert set(machine.fleet.replicas) == {0}
    machine.fleet.scale(2)
    machine.pass_time(0)
    assert set(machine.fleet.replicas) == {0, 2}


def test_replicas_with_another_share_are_replaced_one_after_the_other() -> None:
    machine = Machine(replicas=3, divide=lambda count: [Placement(cores=(count, index)) for index in range(count)])
    machine.load_all()
    old = machine.running()
    machine.fleet.scale(2)

    def states() -> list[str]:
        machine.fleet.retire_surplus()
        machine.pass_time(0)
        return [machine.fleet.state(replica) for replica in machine.fleet.replicas.values()]

    assert states() == ["ready", "ready", "loading"]  # one goes at once, and makes room for a new one
    assert machine.running()[:2] == old[:2]
    machine.load(machine.running()[-1])
    assert states() == ["ready", "ready", "loading"]
    machine.load(machine.running()[-1])
    assert states() == ["ready", "ready"]
    assert not set(machine.running()) & set(old)


def test_a_replica_without_a_place_serves_until_there_is_another() -> None:
    machine = Machine(replicas=1, divide=lambda count: [Placement(cores=(count, index)) for index in range(count)])
    machine.load_all()
    (old,) = machine.running()
    machine.fleet.scale(2)
    machine.pass_time(0)
    machine.add("a")
    assert machine.holder("a") is old
    for process in machine.running()[1:]:
        machine.load(process)
    machine.add("b")
    assert machine.holder("b") is not old
    machine.fleet.retire_surplus()
    assert old in machine.running(), "it still has work"
    machine.say(old, Events((Event("a", (1,), "stop"),)))
    machine.fleet.retire_surplus()
    assert old not in machine.running()


def test_a_process_that_cannot_load_says_why() -> None:
    machine = Machine(replicas=2)
    machine.say(machine.processes[0], LoadFailed("no such file", is_config=True))
    machine.kill(machine.processes[0])
    assert machine.dispatcher.load_failure == LoadFailed("no such file", is_config=True)
    silent = Machine(replicas=1)
    silent.kill(silent.processes[0])
    assert silent.dispatcher.load_failure == LoadFailed("engine process 0 has ended: exit code 3", is_config=False)


def test_only_engines_with_work_hear_that_somebody_waits(machine: Machine) -> None:
    machine.add("a")
    machine.dispatcher.watch()
    assert [Watch() in process.told for process in machine.processes] == [True, False]


class Chaos(RuleBasedStateMachine):
    """Random lives of sequences and processes: each admitted sequence ends exactly once, and never while it is live elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.admitted: set[str] = set()
        self.ended: dict[str, str] = {}

    def drain_news(self) -> None:
        for event in self.machine.dispatcher.inbox.take_all():
            assert event.sequence_id in self.admitted
            assert event.sequence_id not in self.ended, "an event after the last one"
            if event.finish_reason:
                self.ended[event.sequence_id] = event.finish_reason

    @rule(priority=st.integers(-1, 1), max_queue_s=st.none() | st.floats(0.1, 5), letter=st.sampled_from("xyz"))
    def add(self, priority: int, max_queue_s: float | None, letter: str) -> None:
        name = f"{letter}{len(self.admitted)}"
        try:
            self.machine.add(name, priority=priority, max_queue_s=max_queue_s)
        except (Overloaded, Unavailable):
            return
        self.admitted.add(name)

    @precondition(lambda self: self.machine.dispatcher.live)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.machine.dispatcher.cancel(data.draw(st.sampled_from(sorted(self.machine.dispatcher.live))))

    @precondition(lambda self: self.machine.running())
    @rule(data=st.data(), reason=st.sampled_from([None, None, "stop", "cancelled", "error"]))
    def report_event(self, data: st.DataObject, reason: Any) -> None:
        process = data.draw(st.sampled_from(self.machine.running()))
        names = [told.sequence_id for told in process.told if isinstance(told, Add)]
        if names and any(isinstance(told, Add) for told in process.told):
            self.machine.say(process, Events((Event(data.draw(st.sampled_from(names)), (1,), reason),)))
        self.drain_news()

    @precondition(lambda self: self.machine.running())
    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        loading = [replica.process for replica in self.machine.fleet.replicas.values() if not replica.is_ready]
        if loading:
            self.machine.load(data.draw(st.sampled_from(loading)))  # type: ignore[arg-type]

    @precondition(lambda self: self.machine.running())
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        self.machine.kill(data.draw(st.sampled_from(self.machine.running())))

    @rule(seconds=st.floats(0, 10))
    def pass_time(self, seconds: float) -> None:
        self.machine.pass_time(seconds)
        self.machine.dispatcher.end_hung(15, self.machine.now_s)

    @rule(wanted=st.integers(1, 3))
    def scale(self, wanted: int) -> None:
        self.machine.fleet.scale(wanted)
        self.machine.fleet.retire_surplus()

    @invariant()
    def everyone_is_in_one_place(self) -> None:
        self.drain_news()
        dispatcher = self.machine.dispatcher
        assert set(dispatcher.live) == self.admitted - set(self.ended)
        in_engines = [name for replica in self.machine.fleet.replicas.values() for name in replica.sequences]
        held = [sequence.id for sequence in dispatcher._held]
        assert sorted(in_engines + held) == sorted(dispatcher.live)
        for replica in self.machine.fleet.replicas.values():
            assert len(replica.sequences) <= LIMITS.max_running + LIMITS.max_waiting
            assert all(sequence.replica is replica for sequence in replica.sequences.values())

    def teardown(self) -> None:
        self.machine.fleet.end_all()
        self.machine.fleet.bury()
        assert all(process.has_ended for process in self.machine.processes)


TestChaos = Chaos.TestCase
TestChaos.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
