"""One worker a continuous model: a lock that a second worker cannot take."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from handlers.errors import ConfigError


def claim_only_worker(model: str, version: str) -> IO[str]:
    """Return the held lock of ``model`` in this server; it is released when the file is closed or the process ends.

    Raises ConfigError if another worker of the same server holds it. Why: with ``continuousBatching`` an idle second worker keeps the
    model's lock inside its queue poll, and the busy one stalls until another request comes (TorchServe 0.12).
    """
    lock = (_private_directory(f"{model}-{version}") / "worker.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConfigError(
            f"{model} {version} already has a worker, and a continuous model takes only one: keep minWorkers and maxWorkers at 1 "
            "and raise handler.engine.max_running for more concurrency"
        ) from None
    return lock


def _private_directory(name: str) -> Path:
    """Return ``<temp>/marquee-<uid>/<frontend pid>/<name>``, readable by this user only; the frontend is the worker's parent."""
    root = Path(tempfile.gettempdir(), f"marquee-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise ConfigError(f"{root} belongs to another user; remove it, or set TMPDIR to a directory of your own")
    directory = root / str(os.getppid()) / name
    directory.mkdir(parents=True, exist_ok=True)
    return directory
