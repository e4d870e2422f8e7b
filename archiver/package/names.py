"""What may be called how: model names, model versions and the paths of an archive's members."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from archiver.errors import UsageError

# torch-model-archiver's rule for names (model_packaging_utils.check_model_name_regex_or_exit). Of versions TorchServe only asks that they
# can stand in the URL /predictions/<name>/<version>/; they become part of file names too, so the same characters are allowed.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MAX_NAME_CHARS = 128


def check_model_name(name: str) -> str:
    """Return ``name`` if TorchServe can serve a model under it; raises UsageError."""
    if not _NAME.fullmatch(name) or len(name) > _MAX_NAME_CHARS:
        raise UsageError(f"model name {name!r} cannot be used: take letters, digits, '_', '-' and '.', a letter or digit first (--name)")
    return name


def check_model_version(version: str) -> str:
    """Return ``version`` if it can stand in TorchServe's URLs; raises UsageError."""
    if not _NAME.fullmatch(version) or len(version) > _MAX_NAME_CHARS:
        raise UsageError(f"model version {version!r} cannot be used: take letters, digits, '_', '-' and '.', for example 1.0 (--version)")
    return version


def path_problem(path: str) -> str | None:
    """Return what is wrong with a member's path, or None: it must be relative, normalized, with forward slashes and printable."""
    if not path or not path.isprintable():
        return "is empty or has control characters"
    if path.startswith("/") or re.match(r"[A-Za-z]:", path):
        return "is absolute"
    if "\\" in path:
        return "has a backslash"
    if any(part in ("", ".", "..") for part in path.split("/")):
        return "leaves the archive or is not normalized"
    return None


def path_clashes(paths: Iterable[str]) -> list[str]:
    """Return the paths that stand twice, differ in case only, or are a directory of another: no file system could hold them all."""
    clashes, seen = [], set[str]()
    listed = list(paths)
    directories = {parent.as_posix().casefold() for path in listed for parent in PurePosixPath(path).parents}
    for path in listed:
        key = path.casefold()
        if key in seen or key in directories:
            clashes.append(path)
        seen.add(key)
    return clashes
