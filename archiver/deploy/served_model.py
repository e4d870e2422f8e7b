"""One model of a server: an archive and the name under which it answers."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from archiver.errors import UsageError

_MANIFEST = "MAR-INF/MANIFEST.json"


@dataclass(frozen=True)
class ServedModel:
    """``archive`` is a ``.mar`` file or an archive directory; ``name`` and ``version`` are part of the model's URL."""

    name: str
    version: str
    archive: Path
    has_requirements: bool = False

    @property
    def store_name(self) -> str:
        """The archive's name in the server's model store; two models may come from archives of one name."""
        return self.name + self.archive.suffix if self.archive.is_file() else self.name

    @classmethod
    def from_archive(cls, archive: Path, name: str | None = None) -> ServedModel:
        """Read name and version from the archive's manifest; ``name`` replaces the first.

        Raises UsageError when ``archive`` is no archive.
        """
        try:
            model = json.loads(_read_manifest(archive))["model"]
            return cls(name or model["modelName"], model["modelVersion"], archive.resolve(), bool(model.get("requirementsFile")))
        except (OSError, KeyError, TypeError, ValueError, zipfile.BadZipFile):
            raise UsageError(f"{archive} is not a model archive: it has no readable {_MANIFEST}") from None


def model_name_from(text: str) -> str:
    """Return ``text`` as a model name that fits into a URL and a file name: letters, digits, ``_``, ``-`` and ``.``."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.") or "model"


def _read_manifest(archive: Path) -> bytes:
    if archive.is_dir():
        return (archive / _MANIFEST).read_bytes()
    with zipfile.ZipFile(archive) as members:
        return members.read(_MANIFEST)
