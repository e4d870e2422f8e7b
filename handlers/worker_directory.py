"""Where the workers of a model keep what is theirs: a private directory with a short path, and in it a control socket for each."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from handlers.errors import ConfigError


def worker_directory(frontend_pid: int, model: str, version: str, temp: Path | None = None) -> Path:
    """Return ``<temp>/marquee-<uid>/<frontend pid>/<model>-<version>``; what lies there is open to this user only.

    The frontend is the parent of its workers; ``temp`` is their temp directory, by default that of this process. The directory itself is
    there once a worker has begun to load the model.
    """
    root = Path(temp or tempfile.gettempdir(), f"marquee-{os.getuid()}")
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        raise ConfigError(f"{root} belongs to another user; remove it, or set TMPDIR to a directory of your own")
    return root / str(frontend_pid) / f"{model}-{version}"


def control_socket(directory: Path, worker_pid: int) -> Path:
    """Return where the worker of that process id takes orders, if it has loaded; ``directory`` is a ``worker_directory``."""
    return directory / f"{worker_pid}.sock"
