"""The main program of a process that runs one producer.

It runs in environments that do not have Marquee, so it needs nothing but Python. Standard input brings one line, the job as JSON, and then
stays open: its end means that whoever started this is gone. Standard output takes objects as JSON lines::

    {"progress": ["layers", 3, 24]}
    {"versions": {"torch": "2.13.0"}, "peak_memory_bytes": 123456}     the last line, or
    {"error": "one line", "type": "ValueError"}

Everything that libraries print goes to standard error, where the traceback of an error ends up too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def main(file: str) -> int:
    """Run ``produce`` of the Python file ``file``; return the exit code."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(**content: Any) -> None:
        pipe.write(json.dumps(content) + "\n")
        pipe.flush()

    with os.fdopen(os.dup(0), encoding="utf-8") as stdin:
        job = _parse_job(stdin.readline(), lambda *progress: report(progress=progress))
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    try:
        versions = _load(file)(job)
    except Exception as error:  # noqa: BLE001 - whatever a library raises is to be reported
        traceback.print_exc()
        report(error=" ".join(str(error).split()) or "no message", type=type(error).__name__)
        return 1
    report(versions=dict(versions), peak_memory_bytes=_peak_memory_bytes())
    return 0


def _parse_job(line: str, on_progress: Callable[[str, int, int], None]) -> SimpleNamespace:
    """Return what has the attributes of a Job."""
    content = json.loads(line)
    paths = {name: Path(content[name]) for name in ("source", "out", "workspace")}
    calibration = content["calibration"] and SimpleNamespace(**content["calibration"])
    return SimpleNamespace(**paths, options=content["options"], calibration=calibration, on_progress=on_progress)


def _load(file: str) -> Callable[[SimpleNamespace], Mapping[str, str]]:
    spec = importlib.util.spec_from_file_location("producer", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    produce: Callable[[SimpleNamespace], Mapping[str, str]] = module.produce
    return produce


def _leave_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)


def _peak_memory_bytes() -> int:
    """Return the largest resident set so far. Linux's getrusage counts that of the parent, before exec, as well."""
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
