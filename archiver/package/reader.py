"""Read an archive in either format, a ``.mar`` file or a directory, without unpacking it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast
from zipfile import BadZipFile, ZipFile, ZipInfo, is_zipfile

from archiver.errors import ArchiverError, UsageError
from archiver.package.manifest import Manifest, parse_manifest
from handlers.integrity import MANIFEST_FILE

MAX_TEXT_BYTES = 64 * 2**20  # of a manifest, a configuration or a list of hashes; more would be an attack on memory


class ArchiveReader(Protocol):
    """The members of an archive."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size in bytes of each member, by path."""

    def open(self, path: str) -> BinaryIO:
        """Open a member; raises KeyError if there is none."""


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a ``.mar`` file or a directory with a manifest."""
    return (path.is_file() and (path.suffix == ".mar" or is_zipfile(path))) or (path / MANIFEST_FILE).is_file()


@contextmanager
def open_archive(path: Path) -> Iterator[ArchiveReader]:
    """Open an archive for reading.

    Raises UsageError if there is none, ArchiverError (also while it is being read) if the file is damaged.
    """
    try:
        if path.is_dir():
            yield DirectoryReader(path)
        elif path.is_file():
            with ZipFile(path) as archive:
                yield MarReader(archive)
        else:
            raise UsageError(f"no such archive: {path}")
    except (BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ArchiverError(f"{path} is damaged or no .mar file ({error}); build or copy it again") from None


def read_text_member(reader: ArchiveReader, path: str) -> bytes | None:
    """Return the bytes of a small member, or None if there is no such member; raises ArchiverError if it is not small."""
    if path not in reader.sizes:
        return None
    if reader.sizes[path] > MAX_TEXT_BYTES:
        raise ArchiverError(f"{path} has {reader.sizes[path]} bytes, more than the {MAX_TEXT_BYTES} that such a file may have")
    with reader.open(path) as member:
        return member.read(MAX_TEXT_BYTES)


def read_manifest(reader: ArchiveReader, archive: Path) -> Manifest:
    """Return the manifest; raises ArchiverError, which names the ``archive``, if it is missing or malformed."""
    data = read_text_member(reader, MANIFEST_FILE)
    if data is None:
        raise ArchiverError(f"{archive} has no {MANIFEST_FILE}, so it is no TorchServe archive; build one with `marquee archive`")
    return parse_manifest(data, archive)


class MarReader:
    """A ``.mar`` file."""

    def __init__(self, archive: ZipFile) -> None:
        self.zip = archive
        self.infos: list[ZipInfo] = [info for info in archive.infolist() if not info.is_dir()]
        self.sizes: Mapping[str, int] = {info.filename: info.file_size for info in self.infos}

    def open(self, path: str) -> BinaryIO:
        """Open a member; its CRC is checked when its end is read."""
        return cast(BinaryIO, self.zip.open(path))


class DirectoryReader:
    """A directory, which may be a symbolic link; ``__pycache__`` is not part of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sizes: Mapping[str, int] = {path: (directory / path).stat().st_size for path in _files(directory)}

    def open(self, path: str) -> BinaryIO:
        """Open a member."""
        if path not in self.sizes:
            raise KeyError(path)
        return (self.directory / path).open("rb")


def _files(directory: Path) -> Iterator[str]:
    for parent, subdirectories, names in os.walk(directory):
        subdirectories[:] = sorted(set(subdirectories) - {"__pycache__"})
        yield from sorted((Path(parent) / name).relative_to(directory).as_posix() for name in names if (Path(parent) / name).is_file())
