"""One model of a server: an archive and the name under which it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from archiver.package.names import check_model_name
from archiver.package.reader import open_archive, read_manifest, read_text_member
from handlers.memory_ledger import PLAN_FILE


@dataclass(frozen=True)
class ServedModel:
    """``archive`` is a ``.mar`` file or an archive directory; ``name`` and ``version`` are part of the model's URL.

    ``planned``: sizes in ``config.properties`` that the plan in the archive asks for.
    """

    name: str
    version: str
    archive: Path
    has_requirements: bool = False
    planned: Mapping[str, int] = field(default_factory=dict)

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
            planned = _planned_sizes(read_text_member(reader, PLAN_FILE))
        name = check_model_name(name or model.model_name)
        return cls(name, model.model_version or "1.0", archive.resolve(), bool(model.requirements_file), planned)


def _planned_sizes(plan: bytes | None) -> Mapping[str, int]:
    """Return the numbers that a plan.json has for the server; none for a plan that is damaged, which the worker will refuse."""
    try:
        properties = json.loads(plan or "{}").get("properties") or {}
        return {key: int(value) for key, value in properties.items() if str(value).isdecimal()}
    except (ValueError, AttributeError):
        return {}
