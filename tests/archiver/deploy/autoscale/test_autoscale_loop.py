"""The loop with a fake model: it obeys the policy, survives a server that is away, and ends when it is told to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable

import pytest

from archiver.deploy.autoscale.loop import autoscale, interval_until_stopped
from archiver.deploy.autoscale.policy import Decision, Observation, Policy
from archiver.deploy.autoscale.watch import Look, VersionGone
from archiver.errors import ArchiverError, UsageError

POLICY = Policy(1, 4, up_cooldown_s=20, down_cooldown_s=60)
INTERVAL_S = 10.0


class FakeModel:
    """Has one demand after the other, in replicas, or is away for None; its clock goes on by itself. It is its own journal."""

    def __init__(self, demands: Iterable[float | None], *, refuses: bool = False) -> None:
        self.demands = list(demands)
        self.refuses = refuses
        self.now_s = 0.0
        self.replicas = 1
        self.orders: list[tuple[float, int]] = []
        self.log: list[str] = []

    def wait(self) -> bool:
        self.now_s += INTERVAL_S
        return bool(self.demands)

    def look(self) -> Look:
        demand = self.demands.pop(0)
        if demand is None:
            raise ArchiverError("the server is away")
        return Look(Observation(self.now_s, self.replicas, load=demand / self.replicas, occupancy=demand / self.replicas))

    def scale(self, replicas: int) -> None:
        self.orders.append((self.now_s, replicas))
        if self.refuses:
            raise ArchiverError("no more")
        self.replicas = replicas

    def note(self, look: Look, decision: Decision) -> None:
        self.log.append(decision.reason)

    def note_failure(self, problem: str) -> None:
        self.log.append(problem)

    def run(self) -> FakeModel:
        autoscale(POLICY, self.look, self.scale, self, self.wait, clock=lambda: self.now_s)
        return self


def test_follows_the_load_up_and_down():
    model = FakeModel([2.0] * 5 + [4.0] * 5 + [0.5] * 12).run()
    assert model.orders == [(20.0, 2), (60.0, 4), (160.0, 1)]
    assert model.log[0] == "cooling down", "nobody knows what was before it began"


def test_a_server_that_is_away_is_asked_again_and_its_cooldowns_begin_anew():
    model = FakeModel([0.5, None, None, 2.0, 2.0, 2.0]).run()
    assert model.log == ["on target", *["the server is away"] * 2, "cooling down", "over target", "on target"]
    assert model.orders == [(50.0, 2)]


def test_an_order_that_fails_is_given_again_after_the_cooldown():
    model = FakeModel([2.0] * 6, refuses=True).run()
    assert model.orders == [(20.0, 2), (40.0, 2), (60.0, 2)]
    assert model.log[:4] == ["cooling down", "over target", "no more", "cooling down"]


@pytest.mark.parametrize("error", [UsageError("it has no KV cache"), VersionGone("chat 1.0 is not registered")])
def test_what_can_never_work_is_not_tried_again(error: ArchiverError):
    def look() -> Look:
        raise error

    model = FakeModel([1.0] * 3)
    with pytest.raises(type(error), match=str(error)):
        autoscale(POLICY, look, model.scale, model, model.wait)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting_and_the_second_one_the_program(number: signal.Signals):
    previous = signal.getsignal(number)
    with interval_until_stopped(0.001) as wait:
        assert wait()
    with interval_until_stopped(60.0) as wait:
        _soon(lambda: os.kill(os.getpid(), number))
        assert not wait()
        assert signal.getsignal(number) == previous
    assert signal.getsignal(number) == previous


def _soon(action: Callable[[], None]) -> None:
    threading.Timer(0.05, action).start()
