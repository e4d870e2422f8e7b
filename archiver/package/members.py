"""What goes into an archive: each member's path and where its bytes come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import handlers
from archiver.errors import UsageError
from archiver.package.checkpoint import Checkpoint
from archiver.package.names import path_clashes, path_problem
from handlers.integrity import INTEGRITY_FILE

MODEL_DIR = "model"
_UNWANTED_DIRECTORIES = frozenset({"__pycache__", "__MACOSX", "tests"})
_UNWANTED_SUFFIXES = frozenset({".pyc", ".pyo"})


@dataclass(frozen=True)
class Member:
    """A file of the archive: its relative path there, and its bytes or the file that has them."""

    path: str
    content: bytes | Path

    @property
    def size(self) -> int:
        """Size in bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def vendored_members() -> list[Member]:
    """Return the sources of the ``handlers`` package exactly as it is imported now; without caches and tests."""
    package = Path(next(iter(handlers.__path__)))
    return [Member(f"handlers/{path}", file) for path, file in _walk(package)]


def checkpoint_members(checkpoint: Checkpoint, directory: str = MODEL_DIR) -> list[Member]:
    """Place the checkpoint's served files under ``directory``; symbolic links, as in the hub's cache, are followed."""
    return [Member(f"{directory}/{file.as_posix()}", (checkpoint.directory / file).resolve()) for file in checkpoint.files]


def extra_members(extras: Iterable[Path]) -> list[Member]:
    """Place extra files as torch-model-archiver does: a file at the top, a directory's content (not the directory) at the top.

    Raises UsageError for a path that does not exist.
    """
    members = []
    for extra in extras:
        if extra.is_dir():
            members += [Member(path, file) for path, file in _walk(extra)]
        elif extra.is_file():
            members.append(Member(extra.name, extra.resolve()))
        else:
            raise UsageError(f"no such file or directory: {extra} (--extra)")
    return members


def check_members(members: Iterable[Member]) -> tuple[Member, ...]:
    """Return the members in the order in which they are written; raises UsageError for a bad path, or for two members in one place."""
    ordered = tuple(sorted(members, key=lambda member: member.path))
    for member in ordered:
        if problem := path_problem(member.path):
            raise UsageError(f"the path {member.path!r} {problem}; rename the file")
    if clashes := path_clashes([INTEGRITY_FILE, *(member.path for member in ordered)]):
        raise UsageError(f"{clashes[0]} would stand twice in the archive; rename the extra file, or leave it out")
    return ordered


def _walk(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield (relative path, file) of what is worth packaging; hidden files and caches are not."""
    for file in sorted(directory.rglob("*")):
        relative = file.relative_to(directory)
        unwanted = _UNWANTED_DIRECTORIES.intersection(relative.parts) or file.suffix in _UNWANTED_SUFFIXES
        if file.is_file() and not unwanted and not any(part.startswith(".") for part in relative.parts):
            yield relative.as_posix(), file.resolve()
