"""How many replicas a load wants: a pure function of what was seen now and of what is remembered.

The rule is that of Kubernetes' Horizontal Pod Autoscaler (kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale):
``ceil(replicas × measured / target)``, nothing within a tolerance of 10 %, and downwards the largest number that any moment of the last
minutes asked for. Beyond it, there are at most twice as many at a time, and fewer only if 80 % of them can carry what there is. So a load
that wavers by 10 % around a constant moves the number in one direction at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

TOLERANCE = 0.1
"""The share over its target that is borne with."""
FILLED = 0.8
"""Of fewer replicas, the share that the load may take."""
GROWTH = 2
"""The most by which the number is multiplied at once: a queue may be twenty times its target though one more replica would empty it."""
_ROUNDING = 1e-9  # 3 × (4 / 3) is a little over 4 in floating point, and must not be 5 replicas

OrderReason = Literal["over target", "under target", "out of bounds"]
HoldReason = Literal["on target", "cooling down", "at most", "memory is full", "not settled", "no metrics"]


@dataclass(frozen=True)
class Policy:
    """``minimum`` to ``maximum`` replicas, as far as memory suffices. Cool-downs in seconds begin when what was ordered last is there.

    ``down_cooldown_s`` is also how long fewer replicas must have sufficed without a break.
    """

    minimum: int
    maximum: int
    up_cooldown_s: float = 30.0
    down_cooldown_s: float = 300.0


@dataclass(frozen=True)
class Observation:
    """What was seen at ``at_s``: ``replicas``, and ``is_settled`` if all of them serve and none is about to end.

    ``load`` is what was measured by its target: 1.0 is on target; None if nothing could be measured. ``occupancy`` says what fewer replicas
    would have to carry: the share of the replicas' capacity that is used. ``affordable``: how many replicas memory suffices for, if known.
    """

    at_s: float
    replicas: int
    is_settled: bool = True
    load: float | None = None
    occupancy: float = 0.0
    affordable: int | None = None


@dataclass(frozen=True)
class State:
    """What is remembered: when the number changed last (or the watch began), and since then how many were asked for at which moments."""

    changed_s: float
    asked: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Decision:
    """``order`` is the new number of replicas, None to leave it; ``not_before_s``: when the next one can come, after a cool-down."""

    state: State
    reason: OrderReason | HoldReason
    order: int | None = None
    not_before_s: float | None = None


def decide(policy: Policy, state: State, seen: Observation) -> Decision:
    """Return the number to order, if any, and what to remember.

    An order lies within the policy's bounds, and more replicas within what memory suffices for, even if those are fewer than the minimum.
    """
    if not seen.is_settled:
        return Decision(State(seen.at_s), "not settled")
    within = _within_bounds(policy, seen)
    if within != seen.replicas:
        return _order(policy, within, "out of bounds", seen)
    asked = max(_asked(seen), policy.minimum)
    state = _remember(policy, state, seen.at_s, asked)
    if asked > seen.replicas:
        return _grow(policy, state, seen, asked)
    if seen.load is None:
        return Decision(state, "no metrics")
    if asked < seen.replicas:
        return _shrink(policy, state, seen)
    return Decision(state, "on target")


def _within_bounds(policy: Policy, seen: Observation) -> int:
    """Return the number next to the one that there is; memory takes nothing away."""
    most = policy.maximum if seen.affordable is None else max(seen.affordable, seen.replicas)
    return min(max(seen.replicas, policy.minimum), most, policy.maximum)


def _asked(seen: Observation) -> int:
    """Return how many replicas this moment alone asks for; without metrics, as many as there are."""
    if seen.load is None:
        return seen.replicas
    if seen.load > 1 + TOLERANCE:
        return _ceil(seen.replicas * min(seen.load, GROWTH))
    if seen.load > 1:
        return seen.replicas
    return min(_ceil(seen.replicas * seen.occupancy / FILLED), seen.replicas)


def _grow(policy: Policy, state: State, seen: Observation, asked: int) -> Decision:
    affordable = policy.maximum if seen.affordable is None else seen.affordable
    wanted = min(asked, policy.maximum, affordable)
    if wanted <= seen.replicas:
        return Decision(state, "at most" if seen.replicas == policy.maximum else "memory is full")
    if seen.at_s < (ends_s := state.changed_s + policy.up_cooldown_s):
        return Decision(state, "cooling down", not_before_s=ends_s)
    return _order(policy, wanted, "over target", seen)


def _shrink(policy: Policy, state: State, seen: Observation) -> Decision:
    if seen.at_s < (ends_s := state.changed_s + policy.down_cooldown_s):
        return Decision(state, "cooling down", not_before_s=ends_s)
    wanted = max(asked for _, asked in state.asked)
    if wanted >= seen.replicas:  # A moment ago it was needed; the next may come.
        return Decision(state, "on target")
    return _order(policy, wanted, "under target", seen)


def _order(policy: Policy, replicas: int, reason: OrderReason, seen: Observation) -> Decision:
    return Decision(State(seen.at_s), reason, order=replicas, not_before_s=seen.at_s + policy.up_cooldown_s)


def _remember(policy: Policy, state: State, now_s: float, asked: int) -> State:
    recent = tuple(each for each in state.asked if each[0] > now_s - policy.down_cooldown_s)
    return replace(state, asked=(*recent, (now_s, asked)))


def _ceil(replicas: float) -> int:
    return math.ceil(replicas - _ROUNDING)
