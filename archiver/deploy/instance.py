"""The private runtime directory of one running server."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from archiver.errors import ArchiverError

# A Unix socket's path may have 107 bytes (unix(7)); what handlers add below `tmp` takes up to 60.
_LONGEST_BASE = 30


@dataclass(frozen=True)
class Instance:
    """What one server keeps on disk, mode 0700, with a short path: two servers side by side share nothing.

    TorchServe keeps its PID file in Python's temp directory (``TMPDIR``), worker sockets and unpacked archives in Java's (``TEMP``), logs
    and the key file in the current directory, so all of these point in here. ``lock`` stays locked as long as the owner or the guard lives;
    that is how the next start knows a directory whose owner died.
    """

    root: Path
    lock: IO[bytes]

    @property
    def tmp(self) -> Path:
        """Temp directory of the frontend and its workers."""
        return self.root / "tmp"

    @property
    def model_store(self) -> Path:
        """Links to the archives that are served, and nothing else."""
        return self.root / "store"

    @property
    def logs(self) -> Path:
        """``torchserve.log`` (frontend and workers) and ``console.log`` (what the JVM prints itself)."""
        return self.root / "logs"

    @property
    def config_file(self) -> Path:
        """The ``config.properties`` of this instance."""
        return self.root / "config.properties"

    @property
    def key_file(self) -> Path:
        """Where TorchServe writes its tokens when token auth is on."""
        return self.root / "key_file.json"

    @property
    def pid_file(self) -> Path:
        """The frontend's process id, where ``torchserve --stop`` looks for it."""
        return self.tmp / ".model_server.pid"

    def close(self, *, keep_logs: bool) -> None:
        """Give up ownership and remove the directory; with ``keep_logs`` the next start does that. May be repeated."""
        if not keep_logs:
            shutil.rmtree(self.root, ignore_errors=True)
        self.lock.close()


def create_instance(port: int) -> Instance:
    """Create the directory for a server on ``port``, after removing those whose owners died.

    Raises ArchiverError when the directory of all instances belongs to somebody else.
    """
    base = _private_base()
    _remove_abandoned(base)
    root = Path(tempfile.mkdtemp(prefix=f"i{port}-", dir=base))
    instance = Instance(root, _hold_lock(root / "lock"))
    for directory in (instance.tmp, instance.model_store, instance.logs):
        directory.mkdir()
    return instance


def served_archives() -> set[Path]:
    """Return the archives that running servers of this user serve."""
    return {link.resolve() for link in _private_base().glob("i*/store/*")}


def _hold_lock(path: Path) -> IO[bytes]:
    # Locked before it has its name: a start beside this one must not find it unlocked and take it for abandoned.
    unnamed = path.with_suffix(".new")
    lock = unnamed.open("wb")
    fcntl.flock(lock, fcntl.LOCK_EX)
    unnamed.rename(path)
    return lock


def _private_base() -> Path:
    """Return ``<temp dir>/marquee-<uid>``, ours alone: in a shared temp directory anybody could have made it first."""
    temp = Path(tempfile.gettempdir())
    base = (temp if len(os.fsencode(temp)) <= _LONGEST_BASE else Path("/tmp")) / f"marquee-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ArchiverError(f"{base} is not a private directory of this user: remove it, or set TMPDIR to a directory of your own")
    return base


def _remove_abandoned(base: Path) -> None:
    for lock in base.glob("i*/lock"):
        if _is_abandoned(lock):
            shutil.rmtree(lock.parent, ignore_errors=True)


def _is_abandoned(lock: Path) -> bool:
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:  # held by a server, or removed by another start
        return False
