"""Build a file or a directory beside its final place and move it there whole: a partial one never looks finished."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Yield a new hidden file beside ``target``; afterwards put it, flushed, in its place, or remove it if anything was raised.

    TorchServe skips hidden files in its model store.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(descriptor)
    staged = Path(name)
    try:
        yield staged
        staged.chmod(0o666 & ~_umask())
        flush_to_disk(staged)
        staged.replace(target)
        flush_to_disk(target.parent)
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def staged_directory(target: Path) -> Iterator[Path]:
    """Yield a new hidden directory beside ``target``; afterwards put it in its place, or remove it if anything was raised."""
    with hidden_directory(target) as staged:
        yield staged
        place_directory(staged, target)


@contextmanager
def hidden_directory(target: Path) -> Iterator[Path]:
    """Yield a new hidden directory beside ``target``, which is removed afterwards unless ``place_directory`` has put it somewhere."""
    staged = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent))
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def place_directory(staged: Path, target: Path) -> None:
    """Flush a directory and rename it to ``target``, which lies beside it.

    An existing directory is first moved aside (two renames are not one: for an instant there is none), then removed.
    """
    previous = staged.with_suffix(".old")
    staged.chmod(0o777 & ~_umask())
    for path in staged.rglob("*"):
        flush_to_disk(path)
    try:
        if target.exists():
            target.rename(previous)
        staged.rename(target)
        flush_to_disk(target.parent)
    finally:
        if previous.exists() and not target.exists():
            previous.rename(target)
        shutil.rmtree(previous, ignore_errors=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file's data, or a directory's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0o077)  # the only way to read it is to set it
    os.umask(mask)
    return mask
