"""Walk through a ZIP file's local headers and compare them with its directory.

TorchServe 0.12 unpacks with Java's ``ZipInputStream``, which reads local headers only; Python and most other tools read only the directory
at the file's end. An archive in which the two differ shows one content to who checks it and another to who runs it. Layout and numbers:
sections 4.3.7 and 4.5.3 of https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO
from zipfile import ZipFile, ZipInfo

_HEADER = struct.Struct("<4s2xHH4xIIIHH")  # signature, flags, method, CRC-32, packed size, size, name and extra lengths
_SIGNATURE = b"PK\x03\x04"
_UTF8_NAME = 0x800
_SIZES_FOLLOW = 0x8  # CRC and sizes stand in a descriptor behind the data
_DESCRIPTOR_BYTES = frozenset({12, 16, 20, 24})  # with or without signature, with sizes of 4 or 8 bytes
_ZIP64_EXTRA = 0x0001
_IN_ZIP64 = 0xFFFFFFFF


@dataclass(frozen=True)
class LocalHeader:
    """What stands before a member's data, and the offset in the file at which the data begins; sizes in bytes."""

    name: str
    sizes_follow: bool
    method: int
    crc32: int
    packed_size: int
    size: int
    data_offset: int


def read_local_header(file: IO[bytes], offset: int) -> LocalHeader | None:
    """Read the local header at ``offset``; None if none stands there."""
    file.seek(offset)
    data = file.read(_HEADER.size)
    if len(data) < _HEADER.size or not data.startswith(_SIGNATURE):
        return None
    _, flags, method, crc32, packed_size, size, name_bytes, extra_bytes = _HEADER.unpack(data)
    name = file.read(name_bytes).decode("utf-8" if flags & _UTF8_NAME else "cp437", errors="replace")
    extra = file.read(extra_bytes)
    if size == _IN_ZIP64 or packed_size == _IN_ZIP64:
        size, packed_size = _zip64_sizes(extra) or (size, packed_size)
    data_offset = offset + _HEADER.size + name_bytes + extra_bytes
    return LocalHeader(name, bool(flags & _SIZES_FOLLOW), method, crc32, packed_size, size, data_offset)


def is_link(info: ZipInfo) -> bool:
    """Whether a member is marked as a symbolic link (Unix modes stand in the upper half of its attributes)."""
    return stat.S_ISLNK(info.external_attr >> 16)


def find_contradictions(archive: ZipFile) -> Iterator[str]:
    """Yield one line for each local header that contradicts the directory, and for bytes that belong to no member."""
    assert archive.fp is not None
    file, position, gaps = archive.fp, 0, frozenset({0})
    for info in sorted(archive.infolist(), key=lambda info: info.header_offset):
        if info.header_offset - position not in gaps:
            yield f"hidden bytes before {info.filename}"
        header = read_local_header(file, info.header_offset)
        if header is None or not _agrees(header, info):
            yield f"contradictory headers of {info.filename}"
            return
        position = header.data_offset + info.compress_size
        gaps = _DESCRIPTOR_BYTES if header.sizes_follow else frozenset({0})
    if archive.start_dir - position not in gaps:
        yield "hidden bytes before the directory at the file's end"


def _agrees(header: LocalHeader, info: ZipInfo) -> bool:
    if header.name != info.orig_filename or header.method != info.compress_type:
        return False
    return header.sizes_follow or (header.crc32, header.packed_size, header.size) == (info.CRC, info.compress_size, info.file_size)


def _zip64_sizes(extra: bytes) -> tuple[int, int] | None:
    """Return (size, packed size) from the ZIP64 field, in which a local header must give both."""
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        if kind == _ZIP64_EXTRA and length >= 16 and len(extra) >= 20:
            size, packed_size = struct.unpack_from("<QQ", extra, 4)
            return size, packed_size
        extra = extra[4 + length :]
    return None
