"""Write an archive as a directory, which TorchServe links instead of unpacking it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from archiver.package.members import MODEL_DIR, Member
from archiver.package.transfer import OnBytes, Span, digest_span
from handlers.integrity import MemberHash, hash_bytes


class DirectoryWriter:
    """Writes members below an existing directory, which is to be flushed afterwards. Not thread-safe.

    ``link``: the checkpoint's files become hard links, which cost no space; where that is impossible (another file system) they are copied.
    """

    def __init__(self, directory: Path, pool: ThreadPoolExecutor, on_bytes: OnBytes, *, link: bool = False) -> None:
        self._directory = directory
        self._pool = pool
        self._on_bytes = on_bytes
        self._link = link

    def add(self, member: Member) -> MemberHash:
        """Write one member and return its hash."""
        target = self._directory / member.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(member.content, bytes):
            target.write_bytes(member.content)
            self._on_bytes(len(member.content))
            return hash_bytes(member.content)
        source = Span(member.content, 0, member.size)
        if self._link and is_linkable(member, target.parent) and _hard_link(member.content, target):
            return MemberHash(digest_span(source, self._pool, self._on_bytes).sha256, source.size)
        target.touch()
        digest = digest_span(source, self._pool, self._on_bytes, copy_to=Span(target, 0, source.size))
        return MemberHash(digest.sha256, source.size)


def is_linkable(member: Member, directory: Path) -> bool:
    """Whether a member is a file of the checkpoint on the same file system as ``directory``."""
    if not isinstance(member.content, Path) or not member.path.startswith(f"{MODEL_DIR}/"):
        return False
    return member.content.stat().st_dev == directory.stat().st_dev


def _hard_link(file: Path, target: Path) -> bool:
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without hard links
        return False
    return True
