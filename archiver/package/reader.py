"""Read an archive in either format, a ``.mar`` file or a directory, without unpacking it."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import BinaryIO, Protocol, cast
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

from archiver.errors import ArchiverError, UsageError
from archiver.package.local_headers import find_contradictions, is_link, read_local_header
from archiver.package.manifest import Manifest, parse_manifest
from archiver.package.transfer import Span
from handlers.errors import IntegrityError
from handlers.integrity import INTEGRITY_FILE, MANIFEST_FILE, IntegrityRecord

_MAX_TEXT_BYTES = 64 * 2**20  # of a manifest, a configuration or a list of hashes; more would be an attack on memory
_PIECE_BYTES = 2**20


class ArchiveReader(Protocol):
    """The members of an archive. Paths are as the archive gives them: they may stand twice, or lead elsewhere, until they are verified."""

    @property
    def paths(self) -> Sequence[str]:
        """The path of each member, in the archive's order."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Size in bytes by path."""

    def open(self, path: str) -> BinaryIO:
        """Open a member; raises KeyError if there is none."""

    def span(self, path: str) -> Span | None:
        """Return where a member's bytes stand in a file; None if they are compressed."""

    def crc32(self, path: str) -> int | None:
        """Return the CRC-32 that a member should have, if the format has one."""

    def inflated_size(self, path: str) -> int:
        """Return the size that a compressed member really has, read no further than one byte beyond what it declares."""

    def find_oddities(self) -> Iterator[str]:
        """Yield one line for each thing that only this format can have wrong."""


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a ``.mar`` file or a directory with a manifest."""
    return (path.is_file() and (path.suffix == ".mar" or is_zipfile(path))) or (path / MANIFEST_FILE).is_file()


@contextmanager
def open_archive(path: Path) -> Iterator[ArchiveReader]:
    """Open an archive for reading.

    Raises UsageError if there is none, ArchiverError, now or while it is being read, if the file is damaged.
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
    if reader.sizes[path] > _MAX_TEXT_BYTES:
        raise ArchiverError(f"{path} has {reader.sizes[path]} bytes, more than the {_MAX_TEXT_BYTES} that such a file may have")
    with reader.open(path) as member:
        return member.read(_MAX_TEXT_BYTES)


def read_manifest(reader: ArchiveReader, archive: Path) -> Manifest:
    """Return the manifest; raises ArchiverError, which names the ``archive``, if it is missing or malformed."""
    data = read_text_member(reader, MANIFEST_FILE)
    if data is None:
        raise ArchiverError(f"{archive} has no {MANIFEST_FILE}, so it is no TorchServe archive; build one with `marquee archive`")
    return parse_manifest(data, archive)


def read_integrity_record(reader: ArchiveReader) -> IntegrityRecord | None:
    """Return the hashes of the members, or None if the archive lists none; raises ArchiverError if they cannot be read."""
    data = read_text_member(reader, INTEGRITY_FILE)
    try:
        return None if data is None else IntegrityRecord.from_json(data)
    except IntegrityError as error:
        raise ArchiverError(str(error)) from None


class MarReader:
    """A ``.mar`` file."""

    def __init__(self, archive: ZipFile) -> None:
        members = [info for info in archive.infolist() if not info.is_dir()]
        self._zip = archive
        self._infos = {info.filename: info for info in members}
        self.paths = [info.orig_filename for info in members]
        self.sizes = {info.filename: info.file_size for info in members}

    def open(self, path: str) -> BinaryIO:
        """Open a member; its CRC is checked when its end is read."""
        return cast(BinaryIO, self._zip.open(path))

    def span(self, path: str) -> Span | None:
        """Return where in the file a stored member's bytes stand."""
        info = self._infos[path]
        header = read_local_header(cast(BinaryIO, self._zip.fp), info.header_offset)
        if info.compress_type != ZIP_STORED or header is None:
            return None
        return Span(Path(str(self._zip.filename)), header.data_offset, info.file_size)

    def crc32(self, path: str) -> int:
        """Return the CRC-32 that the directory gives."""
        return self._infos[path].CRC

    def inflated_size(self, path: str) -> int:
        """Inflate the member; raises BadZipFile if its CRC is wrong.

        ``ZipExtFile`` stops at the declared size, and so would not see what Java writes behind it: hence one byte more.
        """
        info = copy(self._infos[path])
        info.file_size += 1
        with self._zip.open(info) as member:
            return sum(len(piece) for piece in iter(lambda: member.read(_PIECE_BYTES), b""))

    def find_oddities(self) -> Iterator[str]:
        """Yield symbolic links, and what the local headers say otherwise than the directory."""
        yield from (f"symbolic link {path}" for path, info in self._infos.items() if is_link(info))
        yield from find_contradictions(self._zip)


class DirectoryReader:
    """A directory, which may be a symbolic link; ``__pycache__`` is not part of it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.paths = list(_files(directory))
        self.sizes = {path: (directory / path).stat().st_size for path in self.paths}

    def open(self, path: str) -> BinaryIO:
        """Open a member."""
        if path not in self.sizes:
            raise KeyError(path)
        return (self._directory / path).open("rb")

    def span(self, path: str) -> Span:
        """Return the whole file."""
        return Span(self._directory / path, 0, self.sizes[path])

    def crc32(self, path: str) -> None:
        """Files have none."""

    def inflated_size(self, path: str) -> int:
        """Nothing is compressed."""
        return self.sizes[path]

    def find_oddities(self) -> Iterator[str]:
        """Yield symbolic links, which may lead anywhere."""
        yield from (
            f"symbolic link {path.relative_to(self._directory)}" for path in sorted(self._directory.rglob("*")) if path.is_symlink()
        )


def _files(directory: Path) -> Iterator[str]:
    for parent, subdirectories, names in os.walk(directory):
        subdirectories[:] = sorted(set(subdirectories) - {"__pycache__"})
        yield from sorted((Path(parent) / name).relative_to(directory).as_posix() for name in names if (Path(parent) / name).is_file())
