"""How much of the machine others took while something was measured: on shared cores, the first thing to know about a figure."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True)
class Moment:
    """Processor time until now, in seconds: of the whole machine, and of this process and all below it."""

    at_s: float
    busy_s: float
    own_s: float

    @classmethod
    def now(cls) -> Moment:
        """Look at the clocks."""
        times = psutil.cpu_times()
        idle_s = times.idle + getattr(times, "iowait", 0.0)
        return cls(time.monotonic(), sum(times[:8]) - idle_s, _own_s())  # the further fields are parts of the first ones

    def others_share(self) -> float:
        """Return the share of all cores that others have had since this moment; what a virtual machine was not given counts for them."""
        now = Moment.now()
        others_s = (now.busy_s - self.busy_s) - (now.own_s - self.own_s)
        return max(others_s / (now.at_s - self.at_s) / (os.cpu_count() or 1), 0.0)


def _own_s() -> float:
    this = psutil.Process()
    total_s = 0.0
    for process in (this, *this.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total_s += times.user + times.system
    return total_s
