"""The hashes of an archive's members: what was packaged, and whether a model directory still is just that.

``MAR-INF/integrity.json`` lists every other member with its size and SHA-256, and the package versions that the archive was tested with::

    {"schema": 1, "members": {"handler.py": {"sha256": "9f86…", "size": 412}}, "versions": {"torch": "2.13.0"}}

The SHA-256 of a member of at most 64 MiB is that of its bytes. That of a longer one is taken over the (binary) SHA-256 of each of its
64 MiB blocks, in order, so that all cores of a machine can hash one file of weights.

A file of the model directory that was not packaged counts as added, and is refused, if Python could import it or a loader could read it
(``LOADABLE_SUFFIXES``). Files in ``__pycache__`` never count. Where the manifest declares requirements, neither do the places to which
TorchServe 0.12 installs them (``ModelManager.setupModelDependencies``): ``venv/``, and what the ``RECORD`` of a distribution at the top
lists. A directory-format archive is linked, not unpacked; for it TorchServe installs beside the link, and nothing is added.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from handlers.errors import IntegrityError

INTEGRITY_FILE = "MAR-INF/integrity.json"
MANIFEST_FILE = "MAR-INF/MANIFEST.json"
SCHEMA = 1
BLOCK_BYTES = 64 * 2**20
_PIECE_BYTES = 2**20
_CODE = {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".pt2"}
_WEIGHTS = {
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".gguf",
    ".onnx",
    ".msgpack",
    ".npy",
    ".npz",
    ".pkl",
    ".pickle",
    ".joblib",
}
_TEXTS = {".json", ".jsonl", ".yaml", ".yml", ".toml", ".jinja", ".txt", ".model", ".tiktoken"}
LOADABLE_SUFFIXES = frozenset(_CODE | _WEIGHTS | _TEXTS)
TESTED_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "torchserve", "marquee")

Progress = Callable[[int, int], None]
"""Called in the calling thread with (bytes done, bytes in all)."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MemberHash:
    """SHA-256 (hexadecimal) and size (bytes) of one member."""

    sha256: str
    size: int


@dataclass(frozen=True)
class IntegrityRecord:
    """The content of ``MAR-INF/integrity.json``: members by relative path, versions by package name."""

    members: Mapping[str, MemberHash]
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return the file's bytes; equal records give equal bytes."""
        members = {path: asdict(member) for path, member in self.members.items()}
        return (
            json.dumps({"schema": SCHEMA, "members": members, "versions": dict(self.versions)}, indent=1, sort_keys=True).encode() + b"\n"
        )

    @classmethod
    def from_json(cls, data: bytes) -> IntegrityRecord:
        """Parse the file's bytes; raises IntegrityError if they are not of this schema."""
        try:
            content = json.loads(data)
            if content["schema"] != SCHEMA:
                raise IntegrityError(
                    f"{INTEGRITY_FILE} has schema {content['schema']!r}, this version reads {SCHEMA}; build the archive again"
                )
            return cls({path: MemberHash(**member) for path, member in content["members"].items()}, content["versions"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityError(f"{INTEGRITY_FILE} cannot be read ({error}); build the archive again") from None


def installed_versions() -> dict[str, str]:
    """Return the version of Python and of each installed package that decides what a model answers."""
    versions = {"python": platform.python_version()}
    for package in TESTED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def combine_blocks(digests: Sequence[bytes]) -> str:
    """Return a member's hexadecimal SHA-256 from those of its blocks (at least one; see the module's docstring)."""
    return digests[0].hex() if len(digests) == 1 else hashlib.sha256(b"".join(digests)).hexdigest()


def hash_bytes(data: bytes) -> MemberHash:
    """Hash a member of at most one block that is in memory."""
    return MemberHash(hashlib.sha256(data).hexdigest(), len(data))


def verify_directory(model_dir: Path, *, required: bool = False, progress: Progress | None = None) -> None:
    """Check that a model directory holds what was packaged, before anything in it is loaded.

    A directory without hashes (from torch-model-archiver) passes with one warning, unless ``required``. Packages in other versions than
    those recorded are a warning. The directory may be a symbolic link. Raises IntegrityError that names the altered, missing or added file.
    """
    integrity_file = model_dir / INTEGRITY_FILE
    if not integrity_file.is_file():
        if required:
            raise IntegrityError(f"the archive has no {INTEGRITY_FILE}; build it with `marquee archive`, or set handler.integrity: verify")
        logger.warning("The archive has no %s: its files are used unverified", INTEGRITY_FILE)
        return
    record = IntegrityRecord.from_json(integrity_file.read_bytes())
    problems = find_problems(model_dir, record, progress)
    if problems:
        rest = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise IntegrityError(f"the archive is not what was packaged: {'; '.join(problems[:3])}{rest}; deploy it again")
    for package, tested, installed in changed_versions(record.versions):
        logger.warning("The archive was tested with %s %s; %s is installed here", package, tested, installed)


def find_problems(model_dir: Path, record: IntegrityRecord, progress: Progress | None = None) -> list[str]:
    """Return one line a problem, each with the file's name; contents are read only where names and sizes are right."""
    problems = [*_misfits(model_dir, record), *(f"added {path}" for path in added_files(model_dir, record))]
    return problems or [f"altered {path}" for path in _altered(model_dir, record, progress)]


def added_files(model_dir: Path, record: IntegrityRecord) -> list[str]:
    """Return the relative path of each loadable file that was not packaged (see the module's docstring)."""
    expected = {INTEGRITY_FILE, *record.members, *_installed_files(model_dir)}
    return [path for path in _files(model_dir) if Path(path).suffix in LOADABLE_SUFFIXES and path not in expected]


def changed_versions(tested: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (package, tested, installed) where the installed release differs; a build tag such as ``+cpu`` does not count."""
    installed = installed_versions()
    pairs = [(package, release, installed.get(package, "none")) for package, release in tested.items()]
    return [(package, old, new) for package, old, new in pairs if old.partition("+")[0] != new.partition("+")[0]]


def _misfits(model_dir: Path, record: IntegrityRecord) -> Iterator[str]:
    for path, member in sorted(record.members.items()):
        file = model_dir / path
        if not file.is_file():
            yield f"missing {path}"
        elif file.stat().st_size != member.size:
            yield f"altered {path} ({file.stat().st_size} bytes instead of {member.size})"


def _altered(model_dir: Path, record: IntegrityRecord, progress: Progress | None) -> Iterator[str]:
    total_bytes = sum(member.size for member in record.members.values())
    done_bytes = 0
    with ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="hash") as pool:
        for path, member in sorted(record.members.items()):
            blocks = range(0, max(member.size, 1), BLOCK_BYTES)
            if combine_blocks(list(pool.map(partial(_hash_block, model_dir / path), blocks))) != member.sha256:
                yield path
            done_bytes += member.size
            if progress:
                progress(done_bytes, total_bytes)


def _hash_block(file: Path, offset: int) -> bytes:
    digest, remaining = hashlib.sha256(), BLOCK_BYTES
    buffer = memoryview(bytearray(_PIECE_BYTES))
    with file.open("rb", buffering=0) as stream:
        stream.seek(offset)
        while remaining and (count := stream.readinto(buffer[:remaining])):
            digest.update(buffer[:count])  # without the interpreter's lock
            remaining -= count
    return digest.digest()


def _files(model_dir: Path) -> Iterator[str]:
    for directory, subdirectories, names in os.walk(model_dir, followlinks=True):
        subdirectories[:] = sorted(set(subdirectories) - {"__pycache__"})
        yield from ((Path(directory) / name).relative_to(model_dir).as_posix() for name in sorted(names))


def _installed_files(model_dir: Path) -> Iterator[str]:
    """Yield what TorchServe may have installed here.

    pip records it: https://packaging.python.org/en/latest/specifications/recording-installed-packages/.
    With ``--target`` it moves scripts to ``bin/`` and leaves their recorded path as it was, ``../../bin/…``.
    """
    if not _declares_requirements(model_dir):
        return
    for record in model_dir.glob("*.dist-info/RECORD"):
        yield from (row[0].removeprefix("../../") for row in csv.reader(record.read_text(encoding="utf-8").splitlines()) if row)
    yield from (path for path in _files(model_dir) if path.startswith("venv/"))


def _declares_requirements(model_dir: Path) -> bool:
    try:
        manifest: Any = json.loads((model_dir / MANIFEST_FILE).read_bytes())
        return bool(manifest["model"].get("requirementsFile"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
