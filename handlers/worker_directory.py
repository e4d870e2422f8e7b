"""Where the workers of a model keep what is theirs: a private directory with a short path, and in it a control socket for each."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from handlers.errors import ConfigError


def worker_directory(frontend_pid: int, model: str, version: str, temp: Path | None = None) -> Path:
    """Return ``<temp>/marquee-<uid>/<frontend pid>/<model>/<version>``; what lies there is open to this user only.

    ``temp`` is the workers' temp directory, by default that of this process. The directory itself is there once a worker has begun to load
    the model.
    """
    return _frontend_directory(frontend_pid, temp) / model / version


def control_socket(directory: Path, worker_pid: int) -> Path:
    """Return where the worker of that process id takes orders, once it does; ``directory`` is a ``worker_directory``."""
    return directory / f"{worker_pid}.sock"


def control_sockets(frontend_pid: int, temp: Path | None = None) -> list[Path]:
    """Return the control sockets of all workers of a frontend; at some of them nobody listens any more."""
    return sorted(_frontend_directory(frontend_pid, temp).glob("*/*/*.sock"))


def _frontend_directory(frontend_pid: int, temp: Path | None) -> Path:
    root = Path(temp or tempfile.gettempdir(), f"marquee-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise ConfigError(f"{root} belongs to another user; remove it, or set TMPDIR to a directory of your own")
    return root / str(frontend_pid)
