"""What Linux says of the processor; elsewhere little is known of it."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_MAX_KHZ = Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq")
# When neither the name nor the kernel tells; not "cpu MHz", which changes all the time.
_USUAL_HZ = 2.5e9


@dataclass(frozen=True)
class Processor:
    """``features`` as the kernel writes them, ``threads_per_core`` by hyper-threading, ``hz`` the clock that is promised."""

    name: str
    features: frozenset[str]
    threads_per_core: int = 1
    hz: float = _USUAL_HZ


def read_processor(cpuinfo: Path = CPUINFO, max_khz: Path = _MAX_KHZ) -> Processor:
    """Read the first processor's entry; the result is the same however busy the machine is."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    facts = dict(reversed([(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]))
    name = facts.get("model name") or platform.processor() or platform.machine()
    features = facts.get("flags") or facts.get("Features", "")  # x86, and ARM
    siblings, cores = int(facts.get("siblings", 1)), int(facts.get("cpu cores", 1))
    return Processor(name, frozenset(features.split()), max(siblings // cores, 1), _clock_hz(name, max_khz))


def _clock_hz(name: str, max_khz: Path) -> float:
    if named := re.search(r"@ ([\d.]+)GHz", name):
        return float(named[1]) * 1e9
    return int(max_khz.read_text()) * 1e3 if max_khz.is_file() else _USUAL_HZ
