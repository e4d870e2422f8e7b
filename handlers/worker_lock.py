"""One worker a continuous model: a lock that a second worker cannot take, in a directory that belongs to the first."""

from __future__ import annotations

import fcntl
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from handlers.errors import ConfigError

CONTROL_SOCKET = "control.sock"
"""Its name in the directory of a worker."""


@dataclass(frozen=True)
class WorkerClaim:
    """The held lock, and ``directory``, which nobody else uses while it is held: private to the user, with a short path."""

    directory: Path
    lock: IO[str]

    @property
    def control_socket(self) -> Path:
        """Where the worker listens for orders."""
        return self.directory / CONTROL_SOCKET

    def close(self) -> None:
        """Let another worker have the model; so does the end of the process."""
        self.lock.close()


def claim_only_worker(model: str, version: str) -> WorkerClaim:
    """Claim ``model`` in this server for this worker; raise ConfigError if another worker of the same server has it.

    Why: with ``continuousBatching`` an idle second worker keeps the model's lock inside its queue poll, and the busy one stalls until
    another request comes (TorchServe 0.12).
    """
    directory = worker_directory(os.getppid(), model, version)
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "worker.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ConfigError(
            f"{model} {version} already has a worker, and a continuous model takes only one: keep minWorkers and maxWorkers at 1 "
            "and raise handler.engine.max_running for more concurrency, or handler.engine.replicas for more engines"
        ) from None
    return WorkerClaim(directory, lock)


def worker_directory(frontend_pid: int, model: str, version: str, temp: Path | None = None) -> Path:
    """Return ``<temp>/marquee-<uid>/<frontend pid>/<model>-<version>``; what lies there is open to this user only.

    The frontend is the parent of its workers; ``temp`` is their temp directory, by default that of this process. The directory itself is
    there once a worker has claimed the model.
    """
    root = Path(temp or tempfile.gettempdir(), f"marquee-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise ConfigError(f"{root} belongs to another user; remove it, or set TMPDIR to a directory of your own")
    return root / str(frontend_pid) / f"{model}-{version}"
