"""Check an archive that came from elsewhere, without unpacking it: nothing missing, added, altered or hidden."""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

from archiver.package.local_headers import find_contradictions, read_local_header
from archiver.package.names import path_clashes, path_problem
from archiver.package.reader import ArchiveReader, DirectoryReader, MarReader, open_archive, read_integrity_record, read_manifest
from archiver.package.transfer import Digest, Span, digest_span
from handlers.integrity import INTEGRITY_FILE, IntegrityRecord, Progress

_PIECE_BYTES = 2**20


@dataclass(frozen=True)
class VerifyReport:
    """What was checked and what is wrong: one line a problem, with the member's name.

    ``is_hashed`` is false for an archive that lists no hashes (torch-model-archiver's); then only its form and its CRCs were checked.
    """

    path: str
    problems: tuple[str, ...]
    num_members: int
    total_bytes: int
    is_hashed: bool

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as for JSON."""
        return {"ok": self.ok, **asdict(self)}


def verify_archive(path: Path, *, progress: Progress | None = None) -> VerifyReport:
    """Check an archive's form and every member's content.

    Contents are read only where the form is right. Raises UsageError if there is no archive, ArchiverError if it cannot be read at all.
    """
    with open_archive(path) as reader:
        record = read_integrity_record(reader)
        problems = [*_form_problems(reader, path), *(_record_problems(reader, record) if record else ())]
        if not problems:
            problems = list(_content_problems(reader, record, progress))
        return VerifyReport(str(path), tuple(problems), len(reader.sizes), sum(reader.sizes.values()), record is not None)


def _form_problems(reader: ArchiveReader, path: Path) -> Iterator[str]:
    yield from (f"the path {member!r} {problem}" for member in reader.paths if (problem := path_problem(member)))
    yield from (f"two members at {member}" for member in path_clashes(reader.paths))
    yield from (f"symbolic link {member}" for member in reader.links)
    if isinstance(reader, MarReader):
        yield from find_contradictions(reader.zip)
    manifest = read_manifest(reader, path)
    handler = manifest.model.handler.partition(":")[0]
    if handler.endswith(".py") and handler not in reader.sizes:
        yield f"missing {handler}, the manifest's handler"


def _record_problems(reader: ArchiveReader, record: IntegrityRecord) -> Iterator[str]:
    present = reader.sizes.keys() - {INTEGRITY_FILE}
    yield from (f"missing {member}" for member in sorted(record.members.keys() - present))
    yield from (f"added {member}" for member in sorted(present - record.members.keys()))
    for member in sorted(record.members.keys() & present):
        if reader.sizes[member] != record.members[member].size:
            yield f"altered {member} ({reader.sizes[member]} bytes instead of {record.members[member].size})"


def _content_problems(reader: ArchiveReader, record: IntegrityRecord | None, progress: Progress | None) -> Iterator[str]:
    total_bytes = sum(reader.sizes.values())
    done_bytes = 0

    def on_bytes(num_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += num_bytes
        if progress:
            progress(done_bytes, total_bytes)

    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="verify") as pool:
        for member in sorted(reader.sizes):
            digest = reader.digest(member, pool, on_bytes)
            if digest is None:
                yield f"damaged {member}"
            elif record and member in record.members and digest.sha256 != record.members[member].sha256:
                yield f"altered {member}"
