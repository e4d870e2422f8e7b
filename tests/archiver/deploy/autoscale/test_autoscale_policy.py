"""The policy as a pure function: bounds, cool-downs, where it comes to rest, and that noise does not move it to and fro."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.autoscale.policy import TOLERANCE, Decision, Observation, Policy, State, decide

INTERVAL_S = 5.0
POLICY = Policy(1, 8, up_cooldown_s=30, down_cooldown_s=300)

policies = st.builds(
    lambda least, more, up_s, down_s: Policy(least, least + more, up_s, down_s),
    st.integers(1, 4),
    st.integers(0, 12),
    st.sampled_from([0.0, 5.0, 30.0]),
    st.sampled_from([0.0, 60.0, 300.0]),
)
demands = st.floats(0.0, 20.0)  # in replicas that would be exactly on target


@dataclass(frozen=True)
class Change:
    at_s: float
    before: int
    after: int


def run(policy: Policy, start: int, looks: Iterable[Callable[[int], Observation]]) -> list[Change]:
    """Give every look the number of replicas and obey each order at once."""
    state, replicas, changes = State(0.0), start, []
    for look in looks:
        seen = look(replicas)
        decision = decide(policy, state, seen)
        state = decision.state
        if decision.order is not None:
            changes.append(Change(seen.at_s, replicas, decision.order))
            replicas = decision.order
    return changes


def linear(demands: Iterable[float]) -> list[Callable[[int], Observation]]:
    """Looks at a load that spreads evenly over whatever replicas there are."""

    def look(index: int, demand: float) -> Callable[[int], Observation]:
        return lambda replicas: Observation((index + 1) * INTERVAL_S, replicas, load=demand / replicas, occupancy=demand / replicas)

    return [look(index, demand) for index, demand in enumerate(demands)]


observations = st.builds(
    lambda load, occupancy, settled, affordable: (load, occupancy, settled, affordable),
    st.none() | st.floats(0.0),  # a tiny target makes an infinite load
    st.floats(0.0, 1.0),
    st.booleans(),
    st.none() | st.integers(0, 20),
)


@given(policies, st.integers(1, 20), st.lists(observations, max_size=60))
def test_an_order_is_within_bounds_and_changes_something(
    policy: Policy, start: int, seen: list[tuple[float | None, float, bool, int | None]]
):
    def look(index: int) -> Callable[[int], Observation]:
        load, occupancy, settled, affordable = seen[index]
        return lambda replicas: Observation(index * INTERVAL_S, replicas, settled, load, occupancy, affordable)

    for change in run(policy, start, map(look, range(len(seen)))):
        affordable = seen[round(change.at_s / INTERVAL_S)][-1]
        assert change.after <= policy.maximum
        assert change.after >= policy.minimum or change.after == affordable
        assert affordable is None or change.after <= max(affordable, change.before)
        assert change.after != change.before


@given(policies, st.lists(demands, max_size=200))
def test_orders_are_a_cooldown_apart(policy: Policy, demands: list[float]):
    changes = run(policy, policy.minimum, linear(demands))
    for earlier, later in pairwise([Change(0.0, 0, 0), *changes]):
        cooldown_s = policy.up_cooldown_s if later.after > later.before else policy.down_cooldown_s
        assert later.at_s - earlier.at_s >= cooldown_s


@given(policies, demands, st.integers(1, 20))
def test_a_constant_load_comes_to_rest_where_it_fits(policy: Policy, demand: float, start: int):
    end = _end(start, run(policy, start, linear([demand] * 500)))
    assert run(policy, end, linear([demand] * 200)) == []
    enough = demand <= 1.1 * end + 1e-6 or end == policy.maximum
    one_fewer_is_too_few = demand > 0.8 * (end - 1) - 1e-6 or end == policy.minimum
    assert enough
    assert one_fewer_is_too_few


@given(st.floats(0.0, 10.0), st.integers(1, 8), st.lists(st.floats(-0.1, 0.1), min_size=120, max_size=120))
def test_noise_around_a_constant_load_never_turns_it_round(demand: float, start: int, noise: list[float]):
    changes = run(POLICY, start, linear(demand * (1 + each) for each in noise))
    assert len({change.after > change.before for change in changes}) <= 1


@given(st.integers(1, 8), st.lists(st.floats(-0.1, 0.1), min_size=120, max_size=120))
def test_noise_does_not_move_what_is_on_target(replicas: int, noise: list[float]):
    assert run(POLICY, replicas, linear(0.95 * replicas * (1 + each) for each in noise)) == []


@given(st.lists(st.floats(0.0, 0.5), min_size=61, max_size=200), st.data())
def test_one_busy_moment_keeps_what_it_needs_for_a_whole_cooldown(quiet: list[float], data: st.DataObject):
    busy = data.draw(st.integers(0, 59))
    load = [*quiet[:busy], 3.9, *quiet[busy + 1 :]]
    changes = run(POLICY, 4, linear(load))
    assert all(change.at_s >= (busy + 1) * INTERVAL_S + POLICY.down_cooldown_s for change in changes)


@given(policies, demands)
def test_a_step_up_is_followed_as_fast_as_cooldowns_allow(policy: Policy, demand: float):
    changes = run(policy, policy.minimum, linear([demand] * 500))
    doublings = math.ceil(math.log2(policy.maximum / policy.minimum)) if policy.maximum > policy.minimum else 0
    assert all(change.at_s <= doublings * (policy.up_cooldown_s + INTERVAL_S) for change in changes)


@given(policies, st.integers(1, 20))
def test_without_load_it_ends_at_the_minimum(policy: Policy, start: int):
    assert _end(start, run(policy, start, linear([0.0] * 200))) == policy.minimum


@given(st.floats(0.1, 7.5), st.integers(1, 8), st.floats(0.0, 50.0))
def test_a_queue_is_worked_off_without_going_to_and_fro(arrivals: float, start: int, backlog: float):
    """Each replica serves one sequence a second; where they are too few waiting grows without bound, where they are many it is none."""
    waiting = [backlog]

    def look(index: int) -> Callable[[int], Observation]:
        def see(replicas: int) -> Observation:
            waiting[0] = max(waiting[0] + (arrivals - replicas) * INTERVAL_S, 0.0)
            busy = 1.0 if waiting[0] else arrivals / replicas
            return Observation((index + 1) * INTERVAL_S, replicas, load=waiting[0] / replicas / 0.2, occupancy=busy)

        return see

    changes = run(POLICY, start, map(look, range(1000)))
    turns = sum((earlier.after > earlier.before) != (later.after > later.before) for earlier, later in pairwise(changes))
    assert turns <= 1, "up to work off what waits, and down from there"
    end = _end(start, changes)
    assert end >= arrivals
    assert waiting[0] / end / 0.2 <= 1 + TOLERANCE, "where they just suffice, what is within the target may stay"


def see(replicas: int = 2, **fields: float | bool | None) -> Decision:
    return decide(POLICY, State(0.0), Observation(1000.0, replicas, **fields))  # type: ignore[arg-type]


def test_the_rule_is_proportional_and_doubles_at_most():
    assert see(4, load=1.3).order == 6
    assert see(2, load=50.0).order == 4
    assert see(2, load=1.1).reason == "on target"
    assert see(4, load=0.4, occupancy=0.4).order == 2
    assert see(3, load=4 / 3).order == 4, "and not 5, for a rounding error"


def test_without_waiting_it_is_occupancy_that_says_how_few_suffice():
    assert see(2, load=0.0, occupancy=0.5).reason == "on target"
    assert see(2, load=0.0, occupancy=0.3).order == 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"is_settled": False, "load": 9.0}, "not settled"),
        ({"load": None}, "no metrics"),
        ({"load": 2.0, "affordable": 2}, "memory is full"),
        ({"load": 2.0, "affordable": 0}, "memory is full"),
        ({"replicas": 8, "load": 2.0}, "at most"),
        ({"replicas": 1, "load": 0.0, "occupancy": 0.0}, "on target"),
    ],
)
def test_reasons_to_leave_it(fields: dict[str, float | bool | None], reason: str):
    decision = see(**fields)  # type: ignore[arg-type]
    assert (decision.order, decision.reason) == (None, reason)


def test_memory_cuts_an_order_and_takes_nothing_away():
    assert see(2, load=2.0, affordable=3).order == 3
    assert see(4, load=0.9, occupancy=0.9, affordable=1).order is None


@pytest.mark.parametrize(("replicas", "affordable", "order"), [(1, 2, 2), (1, 9, 4), (1, None, 4), (2, 2, None), (3, 2, None), (9, 2, 8)])
@pytest.mark.parametrize("load", [None, 0.0, 9.0])
def test_memory_wins_over_the_minimum(replicas: int, affordable: int | None, order: int | None, load: float | None):
    decision = decide(Policy(4, 8), State(0.0), Observation(1000.0, replicas, load=load, affordable=affordable))
    assert (decision.order, decision.reason) == (order, "out of bounds" if order else "memory is full")


def test_a_gap_in_the_metrics_counts_as_no_reason_to_shrink():
    looks = linear([0.0] * 200)
    gap = [lambda replicas: Observation(150.0, replicas)]
    (change,) = run(POLICY, 2, [*looks[:29], *gap, *looks[30:]])
    assert change.at_s >= 150.0 + POLICY.down_cooldown_s


def test_a_cooldown_begins_when_what_was_ordered_is_there():
    starting = decide(POLICY, State(0.0), Observation(100.0, 2, is_settled=False, load=9.0))
    decision = decide(POLICY, starting.state, Observation(120.0, 2, load=9.0))
    assert (decision.order, decision.reason, decision.not_before_s) == (None, "cooling down", 130.0)
    assert decide(POLICY, decision.state, Observation(130.0, 2, load=9.0)).order == 4


def _end(start: int, changes: list[Change]) -> int:
    return changes[-1].after if changes else start
