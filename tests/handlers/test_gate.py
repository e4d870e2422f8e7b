"""A synchronous worker that is told to stop, or to step aside."""

from __future__ import annotations

import threading
import time

import pytest

from handlers.errors import ConfigError
from handlers.gate import Gate
from tests.contract.clients import wait_until


def in_background(function) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_an_open_gate_lets_batches_through():
    gate = Gate()
    with gate.batch() as is_open:
        assert is_open
        assert gate.describe() == {"working": True, "draining": False, "parked": False}
    assert gate.describe() == {"working": False, "draining": False, "parked": False}
    gate.wait_while_parked()


def test_draining_waits_for_the_present_batch_and_refuses_the_next():
    gate = Gate()
    drained: list[bool] = []
    with gate.batch() as is_open:
        assert is_open
        assert not gate.drain(timeout_s=0)
        waiter = in_background(lambda: drained.append(gate.drain()))
        assert not drained
    waiter.join(10)
    assert drained == [True]
    with gate.batch() as is_open:
        assert not is_open
        assert gate.drain(timeout_s=0)  # what is only refused is nothing to wait for


def test_a_parked_worker_stays_until_it_may_go():
    gate = Gate()
    gate.park()
    worker = in_background(gate.wait_while_parked)
    wait_until(lambda: gate.describe()["parked"])
    gate.unpark()
    worker.join(10)
    assert not worker.is_alive()
    assert not gate.describe()["parked"]
    gate.wait_while_parked()  # and not again


def test_it_goes_by_itself_when_nobody_comes_back():
    gate = Gate()
    gate.park(timeout_s=0.05)
    begun_s = time.monotonic()
    gate.wait_while_parked()
    assert time.monotonic() - begun_s >= 0.04
    gate.wait_while_parked()


@pytest.mark.parametrize("timeout_s", [-1, "soon", None, float("nan"), float("inf")])
def test_only_seconds_are_taken(timeout_s):
    for order in (Gate().drain, Gate().park):
        with pytest.raises(ConfigError, match="timeout_s"):
            order(timeout_s=timeout_s)
