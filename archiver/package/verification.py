"""Check an archive that came from elsewhere, without unpacking it: nothing missing, added, altered or hidden."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

from archiver.package.names import path_clashes, path_problem
from archiver.package.reader import ArchiveReader, open_archive, read_integrity_record, read_manifest
from archiver.package.transfer import ByteCounter, digest_span
from handlers.integrity import INTEGRITY_FILE, IntegrityRecord, MemberHash, Progress


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
        return VerifyReport(str(path), tuple(problems), len(reader.paths), sum(reader.sizes.values()), record is not None)


def _form_problems(reader: ArchiveReader, path: Path) -> Iterator[str]:
    yield from (f"the path {member!r} {problem}" for member in reader.paths if (problem := path_problem(member)))
    yield from (f"two members at {member}" for member in path_clashes(reader.paths))
    yield from reader.find_oddities()
    handler = read_manifest(reader, path).model.handler.partition(":")[0]
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
    counter = ByteCounter(sum(reader.sizes.values()), progress)
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="verify") as pool:
        for member in sorted(reader.sizes):
            expected = record.members.get(member) if record else None
            if problem := _content_problem(reader, member, expected, pool, counter):
                yield f"{problem} {member}"


def _content_problem(
    reader: ArchiveReader, member: str, expected: MemberHash | None, pool: ThreadPoolExecutor, counter: ByteCounter
) -> Literal["altered", "damaged"] | None:
    span = reader.span(member)
    if span is None:
        return "altered" if expected else _inflation_problem(reader, member)  # ours are never compressed: it was packed again
    crc32 = reader.crc32(member)
    digest = digest_span(span, pool, counter, with_crc=crc32 is not None)
    if crc32 is not None and crc32 != digest.crc32:
        return "damaged"
    return "altered" if expected and expected.sha256 != digest.sha256 else None


def _inflation_problem(reader: ArchiveReader, member: str) -> Literal["damaged"] | None:
    try:
        return None if reader.inflated_size(member) == reader.sizes[member] else "damaged"
    except (BadZipFile, zlib.error, EOFError):
        return "damaged"
