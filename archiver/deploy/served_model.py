"""One model of a server: an archive and the name under which it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from archiver.package.names import check_model_name
from archiver.package.reader import open_archive, read_manifest


@dataclass(frozen=True)
class ServedModel:
    """``archive`` is a ``.mar`` file or an archive directory; ``name`` and ``version`` are part of the model's URL."""

    name: str
    version: str
    archive: Path
    has_requirements: bool = False

    @property
    def store_name(self) -> str:
        """The archive's name in the server's model store, where two models may come from archives of one file name."""
        return f"{self.name}.mar" if self.archive.is_file() else self.name

    @classmethod
    def from_archive(cls, archive: Path, name: str | None = None) -> ServedModel:
        """Read name and version from the archive's manifest; ``name`` replaces the first.

        Raises UsageError where there is no archive, ArchiverError for a damaged one.
        """
        with open_archive(archive) as reader:
            model = read_manifest(reader, archive).model
        name = check_model_name(name or model.model_name)
        return cls(name, model.model_version or "1.0", archive.resolve(), bool(model.requirements_file))
