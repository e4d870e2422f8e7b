"""Intervals that are none: nothing is asked, and nothing sleeps."""

from __future__ import annotations

import math

import pytest

from archiver.deploy.top.command import top
from archiver.errors import UsageError


@pytest.mark.parametrize("interval_s", [0.0, -1.0, math.nan, math.inf, 1e300])
def test_an_interval_that_cannot_be(interval_s: float) -> None:
    with pytest.raises(UsageError, match=r"^--interval \S+: give a number of seconds above 0, at most 86400$"):
        top("http://127.0.0.1:1", interval_s, once=True)
