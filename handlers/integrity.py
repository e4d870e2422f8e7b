"""The hashes of an archive's members: what was packaged, and whether a model directory still is just that.

``MAR-INF/integrity.json`` lists every other member with its size and SHA-256, and the package versions that the archive was tested with::

    {"schema": 1, "members": {"handler.py": {"sha256": "9f86…", "size": 412}}, "versions": {"torch": "2.13.0"}}

The SHA-256 of a member of at most 64 MiB is that of its bytes. That of a longer one is taken over the (binary) SHA-256 of each of its 64 MiB
blocks, in order, so that all cores of a machine can hash one file of weights.

A file of the model directory that was not packaged counts as added, and is refused, if Python could import it or a loader could read it
(``LOADABLE_SUFFIXES``). Files in ``__pycache__`` never count. Where the manifest declares requirements, neither do the places to which
TorchServe 0.12 installs them (``ModelManager.setupModelDependencies``): ``venv/``, and what the ``RECORD`` of a distribution at the top lists.
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
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from handlers.errors import IntegrityError

INTEGRITY_FILE = "MAR-INF/integrity.json"
MANIFEST_FILE = "MAR-INF/MANIFEST.json"
SCHEMA = 1
BLOCK_BYTES = 64 * 2**20
_CODE = {".py", ".pyc", ".pyd", ".so", ".dll", ".dylib"}
_WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".gguf", ".onnx", ".msgpack", ".npy", ".npz", ".pkl", ".pickle", ".joblib"}
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
        return json.dumps({"schema": SCHEMA, "members": members, "versions": dict(self.versions)}, indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> IntegrityRecord:
        """Parse the file's bytes; raises IntegrityError if they are not of this schema."""
        try:
            content = json.loads(data)
            if content["schema"] != SCHEMA:
                raise IntegrityError(f"{INTEGRITY_FILE} has schema {content['schema']!r}, this version reads {SCHEMA}; build the archive again")
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
            raise IntegrityError(f"the archive has no {INTEGRITY_FILE}; build it with `marquee archive`, or set handler.integrity to 'verify'")
        logger.warning("The archive has no %s: its files are used unverified", INTEGRITY_FILE)
        return
    record = IntegrityRecord.from_json(integrity_file.read_bytes())
    problems = list(find_problems(model_dir, record, progress))
    if problems:
        rest = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise IntegrityError(f"the archive is not what was packaged: {'; '.join(problems[:3])}{rest}; deploy it again")
    for package, tested, installed in changed_versions(record.versions):
        logger.warning("The archive was tested with %s %s; %s is installed here", package, tested, installed)


def find_problems(model_dir: Path, record: IntegrityRecord, progress: Progress | None = None) -> Iterator[str]:
    """Yield one line a problem, each with the file's name; contents are read only where names and sizes are right."""
    found = False
    for problem in (*_misfits(model_dir, record), *(f"added {path}" for path in added_files(model_dir, record))):
        found = True
        yield problem
    if not found:
        yield from (f"altered {path}" for path in _altered(model_dir, record, progress))


def changed_versions(tested: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Return (package, tested, installed) where the installed release differs; a build tag such as ``+cpu`` does not count."""
    installed = installed_versions()
    return [
        (package, version, installed.get(package, "none"))
        for package, version in tested.items()
        if version.partition("+")[0] != installed.get(package, "none").partition("+")[0]
    ]


def added_files(model_dir: Path, record: IntegrityRecord) -> Iterator[str]:
    """Yield the relative path of each loadable file that was not packaged (see the module's docstring)."""
    installed = _installed_files(model_dir) if _declares_requirements(model_dir) else None
    for directory, subdirectories, files in os.walk(model_dir, followlinks=True):
        at_top = Path(directory) == model_dir
        subdirectories[:] = sorted(name for name in subdirectories if name != "__pycache__" and not (at_top and name == "venv" and installed is not None))
        for name in sorted(files):
            path = (Path(directory) / name).relative_to(model_dir).as_posix()
            if path in record.members or path == INTEGRITY_FILE or Path(name).suffix not in LOADABLE_SUFFIXES:
                continue
            if path not in (installed or ()):
                yield path


def _misfits(model_dir: Path, record: IntegrityRecord) -> Iterator[str]:
    for path, member in sorted(record.members.items()):
        file = model_dir / path
        if not file.is_file():
            yield f"missing {path}"
        elif file.stat().st_size != member.size:
            yield f"altered {path} ({file.stat().st_size} bytes instead of {member.size})"


def _altered(model_dir: Path, record: IntegrityRecord, progress: Progress | None) -> Iterator[str]:
    """Hash all members, block by block on all cores, and yield those that differ."""
    blocks = [(path, offset) for path, member in sorted(record.members.items()) for offset in range(0, max(member.size, 1), BLOCK_BYTES)]
    total = sum(member.size for member in record.members.values())
    digests: dict[str, list[bytes]] = {path: [] for path in record.members}
    done = 0
    with ThreadPoolExecutor(thread_name_prefix="hash") as pool:
        for (path, offset), digest in zip(blocks, pool.map(lambda block: hash_block(model_dir / block[0], block[1]), blocks), strict=True):
            digests[path].append(digest)
            done += min(BLOCK_BYTES, record.members[path].size - offset)
            if progress:
                progress(done, total)
    yield from (path for path, member in sorted(record.members.items()) if combine_blocks(digests[path]) != member.sha256)


def hash_block(file: Path, offset: int) -> bytes:
    """Return the SHA-256 of the block of ``file`` that begins at ``offset``. Thread-safe; hashing releases the interpreter lock."""
    digest = hashlib.sha256()
    remaining = BLOCK_BYTES
    buffer = memoryview(bytearray(min(2**20, BLOCK_BYTES)))
    with file.open("rb", buffering=0) as stream:
        stream.seek(offset)
        while remaining and (count := stream.readinto(buffer[:remaining])):
            digest.update(buffer[:count])
            remaining -= count
    return digest.digest()


def _declares_requirements(model_dir: Path) -> bool:
    try:
        manifest: Any = json.loads((model_dir / MANIFEST_FILE).read_bytes())
        return bool(manifest["model"].get("requirementsFile"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _installed_files(model_dir: Path) -> frozenset[str]:
    """Return what pip's records say it installed here (https://packaging.python.org/en/latest/specifications/recording-installed-packages/)."""
    installed: set[str] = set()
    for record in model_dir.glob("*.dist-info/RECORD"):
        rows = csv.reader(record.read_text(encoding="utf-8").splitlines())
        # `pip install --target` moves scripts to bin/ but leaves their recorded path as it was: ../../bin/…
        installed.update(row[0].removeprefix("../../") for row in rows if row)
    return frozenset(installed)
