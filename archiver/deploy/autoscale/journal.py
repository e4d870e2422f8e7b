"""A line for each decision, with its numbers: for people, or as JSON for a machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from archiver.deploy.autoscale.policy import Decision, Policy
from archiver.deploy.autoscale.signals import SignalName, Target
from archiver.deploy.autoscale.watch import Look

_LOADS: dict[SignalName, str] = {
    "queue": "queue {measured:.0f} ms, target {target:.0f} ms ({excess:+.0%}), {occupancy:.0%} occupied",
    "running": "{measured:.1f} requests a replica, target {target:g} ({excess:+.0%})",
    "kv usage": "KV usage {measured:.0%}, target {target:.0%} ({excess:+.0%})",
}


class Journal:
    """Writes orders, and whatever else is decided when it is something new. ``write`` takes whole lines. Not thread-safe."""

    def __init__(
        self,
        policy: Policy,
        target: Target,
        write: Callable[[str], None],
        *,
        is_dry_run: bool = False,
        as_json: bool = False,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._policy = policy
        self._target = target
        self._write = write
        self._is_dry_run = is_dry_run
        self._as_json = as_json
        self._now = now
        self._last: object = None

    def note(self, look: Look, decision: Decision) -> None:
        """Write a line, unless this is no order and the same as before."""
        what = (decision.reason, look.observation.replicas, decision.order)
        if what != self._last or decision.order is not None:
            self._write(self._record(look, decision) if self._as_json else self._sentence(look, decision))
        self._last = what

    def note_failure(self, problem: str) -> None:
        """Write what keeps us from looking or scaling, unless it is the same as before."""
        if problem != self._last:
            record = json.dumps({"time": self._now().isoformat(timespec="seconds"), "action": "fail", "problem": problem})
            self._write(record if self._as_json else f"{self._now():%H:%M:%S} hold: {problem}")
        self._last = problem

    def _sentence(self, look: Look, decision: Decision) -> str:
        seen = look.observation
        verb = "would scale" if self._is_dry_run else "scale"
        deed = f"hold {seen.replicas}" if decision.order is None else f"{verb} {seen.replicas} → {decision.order}"
        return f"{self._now():%H:%M:%S} {deed}: {'; '.join(filter(None, (self._load(look), self._why(look, decision))))}"

    def _load(self, look: Look) -> str:
        """For example ``queue 412 ms, target 200 ms (+106%), 90% occupied, 14 waiting``."""
        if (reading := look.reading) is None:
            return ""
        target = self._target.value
        excess = reading.measured / target - 1
        load = _LOADS[self._target.signal]
        return f"{load}, {{waiting}} waiting".format(target=target, excess=excess, **asdict(reading))

    def _why(self, look: Look, decision: Decision) -> str:
        policy, reason, affordable = self._policy, decision.reason, look.observation.affordable
        is_short = affordable is not None and affordable < policy.minimum
        until = f"{self._clock_time(look, decision):%H:%M:%S}"
        return {
            "over target": f"next not before {until}",
            "under target": f"so for {policy.down_cooldown_s:g} s",
            "out of bounds": f"--min {policy.minimum} --max {policy.maximum}{f', memory suffices for {affordable}' if is_short else ''}",
            "on target": "",
            "cooling down": f"cooling down until {until}",
            "at most": f"--max is {policy.maximum}",
            "memory is full": f"memory suffices for {affordable}{f', --min is {policy.minimum}' if is_short else ''}",
            "not settled": "replicas are starting or ending",
            "no metrics": "the model has not reported any metrics yet",
        }[reason]

    def _record(self, look: Look, decision: Decision) -> str:
        seen, reading = look.observation, look.reading
        record: dict[str, Any] = {
            "time": self._now().isoformat(timespec="seconds"),
            "action": "hold" if decision.order is None else "scale",
            "dry_run": self._is_dry_run,
            "replicas": seen.replicas,
            "order": decision.order,
            "reason": decision.reason,
            "signal": self._target.signal,
            "target": self._target.value,
            "measured": reading and reading.measured,
            "occupancy": reading and reading.occupancy,
            "waiting": reading and reading.waiting,
            "affordable": seen.affordable,
            "not_before": decision.not_before_s and self._clock_time(look, decision).isoformat(timespec="seconds"),
        }
        return json.dumps(record)

    def _clock_time(self, look: Look, decision: Decision) -> datetime:
        return self._now() + timedelta(seconds=(decision.not_before_s or 0.0) - look.observation.at_s)
