"""Write a ``.mar`` file: a ZIP whose members are stored, not deflated.

Weights do not compress, and storing makes the file's bytes independent of the zlib version. TorchServe unpacks with
``java.util.zip.ZipInputStream``, which reads local headers only and refuses stored members whose size and CRC follow the data: so each
local header is written again once they are known. Above 2 GiB the headers are ZIP64's.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from archiver.package.manifest import build_time
from archiver.package.members import Member
from archiver.package.transfer import OnBytes, Span, digest_span
from handlers.integrity import MemberHash, hash_bytes

_UNIX = 3
_REGULAR_FILE_0644 = 0o100644 << 16


class MarWriter:
    """Writes members into a new file, in the order in which they are added. Not thread-safe; use as a context manager."""

    def __init__(self, file: Path, pool: ThreadPoolExecutor, on_bytes: OnBytes) -> None:
        self._file = file
        self._zip = _SpanZip(file, "w", ZIP_STORED)
        self._pool = pool
        self._on_bytes = on_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    def add(self, member: Member) -> MemberHash:
        """Write one member and return its hash."""
        info = ZipInfo(member.path, build_time().timetuple()[:6])
        info.create_system, info.external_attr = _UNIX, _REGULAR_FILE_0644
        if isinstance(member.content, bytes):
            self._zip.writestr(info, member.content)
            self._on_bytes(len(member.content))
            return hash_bytes(member.content)
        info.file_size = info.compress_size = member.size
        place = self._zip.reserve(info)
        digest = digest_span(Span(member.content, 0, member.size), self._pool, self._on_bytes, copy_to=place, with_crc=True)
        self._zip.commit(info, digest.crc32)
        return MemberHash(digest.sha256, member.size)


class _SpanZip(ZipFile):
    """A ZipFile in which the data of a member may be written from outside, by several threads."""

    def reserve(self, info: ZipInfo) -> Span:
        """Write a local header and return the place of the data that belongs behind it."""
        assert self.fp is not None
        self.fp.seek(self.start_dir)
        info.header_offset, info.CRC = self.fp.tell(), 0
        self.fp.write(info.FileHeader())
        self.fp.flush()
        return Span(Path(str(self.filename)), self.fp.tell(), info.file_size)

    def commit(self, info: ZipInfo, crc32: int) -> None:
        """Complete the header of a member whose data is written, and list it in the directory."""
        assert self.fp is not None
        info.CRC = crc32
        self.fp.seek(info.header_offset)
        self.fp.write(info.FileHeader())
        self.start_dir = self.fp.tell() + info.file_size
        self.filelist.append(info)
        self.NameToInfo[info.filename] = info
        self._didModify = True
