"""What is written of decisions: sentences, JSON, and nothing twice."""

from __future__ import annotations

import json
from datetime import datetime

import pytest

from archiver.deploy.autoscale.journal import Journal
from archiver.deploy.autoscale.policy import Decision, Observation, Policy, State
from archiver.deploy.autoscale.signals import Reading, Target
from archiver.deploy.autoscale.watch import Look

NOON = datetime(2030, 1, 1, 12, 0, 5)
POLICY = Policy(1, 4, up_cooldown_s=30, down_cooldown_s=300)
QUEUE = Target("queue", 200)
STATE = State(100.0)
BUSY = Look(Observation(100.0, 2, load=2.06, occupancy=0.9, affordable=3), Reading(412.0, 0.9, 14))
ORDER = Decision(STATE, "over target", order=3, not_before_s=130.0)
HOLD = Decision(STATE, "on target")


class Lines(list[str]):
    """A journal's lines, and the journal."""

    def journal(self, target: Target = QUEUE, *, is_dry_run: bool = False, as_json: bool = False) -> Journal:
        return Journal(POLICY, target, self.append, is_dry_run=is_dry_run, as_json=as_json, now=lambda: NOON)


@pytest.fixture
def lines() -> Lines:
    return Lines()


def test_an_order_has_its_numbers(lines: Lines):
    lines.journal().note(BUSY, ORDER)
    numbers = "queue 412 ms, target 200 ms (+106%), 90% occupied, 14 waiting"
    assert lines == [f"12:00:05 scale 2 → 3: {numbers}; next not before 12:00:35"]


def test_a_dry_run_says_so(lines: Lines):
    lines.journal(is_dry_run=True).note(BUSY, ORDER)
    assert lines[0].startswith("12:00:05 would scale 2 → 3: queue 412 ms")


@pytest.mark.parametrize(
    ("decision", "ending"),
    [
        (HOLD, ", 14 waiting"),
        (Decision(STATE, "cooling down", not_before_s=110.0), "; cooling down until 12:00:15"),
        (Decision(STATE, "at most"), "; --max is 4"),
        (Decision(STATE, "memory is full"), "; memory suffices for 3"),
        (Decision(STATE, "under target", order=1), "; so for 300 s"),
        (Decision(STATE, "out of bounds", order=4), "; --min 1 --max 4"),
    ],
)
def test_why(lines: Lines, decision: Decision, ending: str):
    lines.journal().note(BUSY, decision)
    assert lines[0].endswith(ending)


@pytest.mark.parametrize(
    ("decision", "ending"),
    [
        (Decision(STATE, "out of bounds", order=3), "; --min 4 --max 8, memory suffices for 3"),
        (Decision(STATE, "memory is full"), "; memory suffices for 3, --min is 4"),
    ],
)
def test_a_minimum_that_memory_does_not_suffice_for(lines: Lines, decision: Decision, ending: str):
    Journal(Policy(4, 8), QUEUE, lines.append, now=lambda: NOON).note(BUSY, decision)
    assert lines[0].endswith(ending)


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (Decision(STATE, "not settled"), "12:00:05 hold 2: replicas are starting or ending"),
        (Decision(STATE, "no metrics"), "12:00:05 hold 2: the model has not reported any metrics yet"),
    ],
)
def test_without_a_load(lines: Lines, decision: Decision, sentence: str):
    lines.journal().note(Look(Observation(100.0, 2)), decision)
    assert lines == [sentence]


@pytest.mark.parametrize(
    ("target", "measured", "load"),
    [
        (Target("running", 8), 6.0, ": 6.0 requests a replica, target 8 (-25%), 0 waiting"),
        (Target("kv usage", 0.8), 0.9, ": KV usage 90%, target 80% (+12%), 0 waiting"),
    ],
)
def test_units(lines: Lines, target: Target, measured: float, load: str):
    lines.journal(target).note(Look(BUSY.observation, Reading(measured, 0.5, 0)), HOLD)
    assert lines[0].endswith(load)


def test_holds_are_written_when_they_are_something_new(lines: Lines):
    journal = lines.journal()
    for decision in (HOLD, HOLD, ORDER, ORDER, HOLD, HOLD, Decision(STATE, "at most"), HOLD):
        journal.note(BUSY, decision)
    assert [line.split()[1] for line in lines] == ["hold", "scale", "scale", "hold", "hold", "hold"]


def test_so_are_failures(lines: Lines):
    journal = lines.journal()
    for problem in ("no server", "no server", "no metrics"):
        journal.note_failure(problem)
    journal.note(BUSY, HOLD)
    assert [line.split(maxsplit=1)[1] for line in lines[:2]] == ["hold: no server", "hold: no metrics"]
    assert len(lines) == 3


def test_json_for_a_machine(lines: Lines):
    journal = lines.journal(as_json=True)
    journal.note(BUSY, ORDER)
    journal.note(Look(Observation(100.0, 2)), Decision(STATE, "not settled"))
    journal.note_failure("no server")
    order, hold, failure = map(json.loads, lines)
    assert order == {
        "time": "2030-01-01T12:00:05",
        "action": "scale",
        "dry_run": False,
        "replicas": 2,
        "order": 3,
        "reason": "over target",
        "signal": "queue",
        "target": 200,
        "measured": 412.0,
        "occupancy": 0.9,
        "waiting": 14,
        "affordable": 3,
        "not_before": "2030-01-01T12:00:35",
    }
    assert (hold["action"], hold["reason"], hold["measured"], hold["not_before"]) == ("hold", "not settled", None, None)
    assert failure == {"time": "2030-01-01T12:00:05", "action": "fail", "problem": "no server"}
