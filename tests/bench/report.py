"""What stands beside every figure: the machine, the versions, the command; and results as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import re
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("torch", "triton", "transformers", "torchserve", "torch-model-archiver", "safetensors", "httpx")


@dataclass(frozen=True)
class Machine:
    """Where figures come from. ``load_average`` of the last minute: looked at before the benchmark, it tells what else was going on."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    load_average: float

    @classmethod
    def here(cls) -> Machine:
        """Look at this machine."""
        memory_gib = psutil.virtual_memory().total / 2**30
        return cls(
            _cpu_name(),
            os.cpu_count() or 1,
            round(memory_gib, 1),
            f"{platform.system()} {platform.machine()}",
            round(os.getloadavg()[0], 1),
        )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide about speed, as far as they are there."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def write_json(path: Path, machine: Machine, results: dict[str, Any]) -> None:
    """Write results with machine, versions, time and command; dataclasses become objects, NaN becomes null."""
    command = " ".join(["python", "-m", f"tests.bench.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
    head = {"command": command, "at": time.strftime("%Y-%m-%d %H:%M"), "machine": machine, "versions": versions()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(head | results), indent=2) + "\n")


def _cpu_name() -> str:
    """Return the processor's name, and its model number: virtual machines hide the rest."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    return f"{found.get('model name', platform.processor())} (family {found.get('cpu family')}, model {found.get('model')})"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
