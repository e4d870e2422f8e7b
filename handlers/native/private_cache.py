"""A directory for compiled code that survives restarts, and that nobody else may write to: what lies in it will be executed."""

from __future__ import annotations

import os
from pathlib import Path


def private_cache(name: str) -> Path:
    """Return ``marquee/<name>`` below ``XDG_CACHE_HOME`` (default: ``~/.cache``), made if need be; raises OSError if there is none."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:  # a user id that no account belongs to, as some container platforms hand out
        raise FileNotFoundError(str(error)) from error
    directory = root / "marquee" / name
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"others may write to {directory}")
    return directory
