"""Archives that ``marquee serve`` makes of checkpoints, kept so that the next start need not build them again.

::

    <cache>/<name>-<hash of the checkpoint's path>/<hash of what goes in>/<name>/     the archive, a directory

What goes in is compared by path, size, modification time and inode, so finding an archive reads no weights and imports no handler. The
weights are hard links: an entry costs no space until the checkpoint itself is deleted, which is why entries whose checkpoint is gone, or
has changed, are removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from archiver import package
from archiver.deploy.instance import served_archives
from archiver.package.archive import ArchiveSpec, build_archive
from archiver.package.checkpoint import read_checkpoint
from archiver.package.draft_model import draft_members
from archiver.package.members import checkpoint_members, extra_members, vendored_members
from archiver.package.model_config import handler_config, load_model_config
from handlers.integrity import Progress, installed_versions

_ORIGIN = "checkpoint"  # a file in an entry: the path of what it was built from


def cached_archive(spec: ArchiveSpec, progress: Progress | None = None) -> Path:
    """Return an archive directory for ``spec``, built now if there is none; ``format``, ``link`` and ``out`` of ``spec`` do not matter.

    Raises what ``build_archive`` raises. Processes that want the same archive at the same time build it once.
    """
    cache = cache_directory(spec.source)
    entry = cache / f"{spec.name}-{_digest([str(spec.source.resolve())])}"
    version = entry / _digest(_inputs(spec))
    entry.mkdir(parents=True, exist_ok=True)
    with _exclusive(entry / "lock"):
        (entry / _ORIGIN).write_text(str(spec.source.resolve()))
        archive = version / spec.name
        if not archive.exists():
            build_archive(replace(spec, format="dir", link=True, out=version), progress=progress)
    _remove_outdated(cache, current=version)
    return archive


def cache_directory(checkpoint: Path) -> Path:
    """Return where archives of ``checkpoint`` are kept: ``MARQUEE_CACHE``, else ``~/.cache/marquee`` (``XDG_CACHE_HOME``).

    Hard links cannot cross file systems, and a copy of the weights may not fit in the home directory: where that lies on another file
    system than the checkpoint, it is ``.marquee`` beside the checkpoint, if that can be written.
    """
    if chosen := os.environ.get("MARQUEE_CACHE"):
        return Path(chosen)
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "marquee"
    with contextlib.suppress(OSError):
        home.mkdir(parents=True, exist_ok=True)
    parent = checkpoint.resolve().parent
    is_linkable = home.exists() and home.stat().st_dev == checkpoint.stat().st_dev
    return parent / ".marquee" if not is_linkable and os.access(parent, os.W_OK) else home


def _inputs(spec: ArchiveSpec) -> Iterator[str]:
    """Yield a line for everything that decides what the archive holds; raises UsageError for what cannot be packaged."""
    config = handler_config(load_model_config(spec.config, spec.settings))
    model = config.model
    checkpoint = read_checkpoint(spec.source, trust_remote_code=model.trust_remote_code, allow_pickle=model.allow_pickle)
    weights = [*checkpoint_members(checkpoint), *draft_members(spec.draft_model, checkpoint, config)]
    yield json.dumps([spec.version, spec.settings, spec.frontend, installed_versions()], sort_keys=True, default=str)
    yield _identity(spec.plan or b"")
    for member in (*weights, *vendored_members(), *extra_members(spec.extra)):
        yield f"{member.path} {_identity(member.content)}"
    builder = sorted(Path(package.__path__[0]).glob("*.py"))
    for file in (spec.handler, spec.requirements, spec.config, *builder):
        yield _identity(file) if file else ""


def _identity(content: bytes | Path) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    if not content.is_file():
        return "missing"  # for build_archive to complain about
    status = content.stat()
    return f"{content.resolve()} {status.st_size} {status.st_mtime_ns} {status.st_ino}"


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _remove_outdated(cache: Path, current: Path) -> None:
    in_use = served_archives()
    for origin in cache.glob(f"*/{_ORIGIN}"):
        entry = origin.parent
        is_gone = not Path(origin.read_text()).exists()
        if not is_gone and entry != current.parent:
            continue
        versions = [path for path in entry.iterdir() if path.is_dir() and path != current]
        outdated = [path for path in versions if not any(archive.is_relative_to(path) for archive in in_use)]
        for path in outdated:
            shutil.rmtree(path, ignore_errors=True)
        if is_gone and outdated == versions:
            shutil.rmtree(entry, ignore_errors=True)
