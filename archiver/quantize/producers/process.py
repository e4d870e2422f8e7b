"""Run a producer in a process of its own, which dies with this one; ``child.py`` is its other side."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import archiver
from archiver.errors import ArchiverError, UsageError
from archiver.quantize.producer import Job, OnProgress

_CHILD = Path(__file__).with_name("child.py")
_PACKAGES = Path(archiver.__file__).resolve().parents[1]


@dataclass(frozen=True)
class Outcome:
    """The versions of the libraries that did the work, by package name, and the most memory that their process had."""

    versions: Mapping[str, str]
    peak_memory_bytes: int


def run_producer(file: Path, job: Job, log: Path, python: Path | None = None) -> Outcome:
    """Run ``produce`` of the Python file ``file`` on ``job``; ``python`` is the interpreter of a tool environment, None is this one.

    What its libraries print goes to the file ``log``. Raises UsageError as the producer does, and ArchiverError with the error's one line
    and the log's name for everything else that it dies of. An exception here (Ctrl-C) kills it.
    """
    # -P: neither the directory of child.py, where modules are named after libraries, nor the current one is searched for packages.
    command = [python or sys.executable, "-P", _CHILD, file]
    with log.open("ab") as stderr, _running(command, _environment(is_ours=python is None), stderr) as process:
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once, and its last words are read below
            process.stdin.write(json.dumps(_describe(job)) + "\n")
            process.stdin.flush()
        last = _follow(process.stdout, job.on_progress)
        return _conclude(last, process.wait(), log)


@contextlib.contextmanager
def _running(command: list[Any], environment: dict[str, str], stderr: Any) -> Iterator[subprocess.Popen[str]]:
    """A session of its own: Ctrl-C reaches this process alone, which then ends the other's whole group."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        command, env=environment, stdin=pipe, stdout=pipe, stderr=stderr, text=True, encoding="utf-8", start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()  # type: ignore[union-attr]


def _environment(*, is_ours: bool) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    ours = {"PYTHONPATH": str(_PACKAGES)} if is_ours else {}
    return kept | ours | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def _describe(job: Job) -> dict[str, Any]:
    return {
        "source": str(job.source),
        "out": str(job.out),
        "workspace": str(job.workspace),
        "options": dict(job.options),
        "calibration": job.calibration and dataclasses.asdict(job.calibration),
    }


def _follow(lines: Iterable[str], on_progress: OnProgress) -> dict[str, Any]:
    """Pass progress on until the pipe ends; return the last line's content."""
    content: dict[str, Any] = {}
    for line in lines:
        content = json.loads(line)
        if "progress" in content:
            on_progress(*content["progress"])
    return content


def _conclude(last: Mapping[str, Any], exit_code: int, log: Path) -> Outcome:
    if "versions" in last:
        return Outcome(last["versions"], last["peak_memory_bytes"])
    if last.get("type") == "UsageError":
        raise UsageError(last["error"])
    if "error" in last:
        raise ArchiverError(f"quantizing failed: {last['type']}: {last['error']} (its log: {log})")
    advice = "; most likely there was too little memory" if exit_code == -signal.SIGKILL else ""
    raise ArchiverError(f"quantizing ended with exit code {exit_code}{advice} (its log: {log})")
