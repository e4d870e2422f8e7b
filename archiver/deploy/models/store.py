"""Put an archive into a server's model store for the time that its model is registered.

Always as a directory: a ``.mar`` file TorchServe 0.12 would unpack itself, on one of its few network threads, and all connections that this
thread serves would stand still for as long as that takes.
"""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path
from zipfile import ZipFile

from rich.filesize import decimal

from archiver.deploy.models.progress import Progress
from archiver.errors import UsageError

# What is ours in a model store, and goes when its model goes; the rest is the operator's.
_PLACED = re.compile(r".+\.placed-[0-9a-f]{8}")


def place(archive: Path, store: Path, title: str, progress: Progress) -> Path:
    """Link a directory, or unpack a file, under a name of its own; return where it is. Raises UsageError if there is no room."""
    place = store / f"{title}.placed-{secrets.token_hex(4)}"
    if archive.is_dir():
        place.symlink_to(archive)
    else:
        _unpack(archive, place, progress)
    return place


def remove(name: str, store: Path) -> None:
    """Remove what was placed under ``name``; leave alone what was not."""
    place = store / name
    if not _PLACED.fullmatch(name):
        return
    if place.is_symlink():
        place.unlink()
    else:
        shutil.rmtree(place, ignore_errors=True)


def _unpack(archive: Path, place: Path, progress: Progress) -> None:
    """Unpack a verified archive; nothing has the name ``place`` before it is whole."""
    part = place.with_name(f".{place.name}")
    with ZipFile(archive) as file:
        members = file.infolist()
        total, free = sum(member.file_size for member in members), shutil.disk_usage(place.parent).free
        if total > free:
            raise UsageError(f"{archive} takes {decimal(total)} unpacked, and {place.parent} has {decimal(free)} free")
        try:
            done = 0
            for member in members:
                file.extract(member, part)
                done += member.file_size
                progress.doing(f"unpacking {archive}: {done / max(total, 1):.0%}")
            part.rename(place)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
