"""Directories in which unfinished quantizations keep their logs, and what they need to be resumed."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archiver.errors import UsageError
from archiver.quantize.environment import cache_home
from archiver.quantize.plan import Plan

LOG = "log.txt"


@contextmanager
def workspace(plan: Plan) -> Iterator[Path]:
    """Yield the directory of this plan, the same one whenever the same is planned; remove it afterwards, unless anything was raised.

    Raises UsageError while another process is carrying out the same plan.
    """
    directory = cache_home() / "quantize" / f"{plan.recipe.label}-{_identity(plan)}"
    directory.mkdir(parents=True, exist_ok=True)
    with _claimed(directory):
        yield directory
        shutil.rmtree(directory)


def _identity(plan: Plan) -> str:
    """A hash of everything that a producer's unfinished work depends on; of the source's files, as they are now."""
    status = [(plan.source.directory / file).stat() for file in plan.source.files]
    files = [[str(file), status.st_size, status.st_mtime_ns] for file, status in zip(plan.source.files, status, strict=True)]
    calibration = [plan.calibration.record.sha256, plan.calibration.samples.max_length] if plan.calibration else None
    parts = [str(plan.source.directory), files, str(plan.out), plan.recipe.name, dict(plan.recipe.options), calibration]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


@contextmanager
def _claimed(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UsageError(f"the same quantization is running already, in another process (its log: {directory / LOG})") from None
    finally:
        os.close(descriptor)
