"""``MAR-INF/MANIFEST.json`` in torch-model-archiver's schema, the contract with TorchServe."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from archiver.errors import ArchiverError, UsageError
from handlers.integrity import MANIFEST_FILE

ARCHIVER_VERSION = "0.12.0"
"""torch-model-archiver's version whose schema this is; TorchServe warns if there is none."""

_EARLIEST_ZIP_TIME = datetime(1980, 1, 1, tzinfo=UTC)


class _Entry(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", protected_namespaces=())


class ManifestModel(_Entry):
    """The ``model`` entry; the file names are relative to the archive's root."""

    model_name: str
    serialized_file: str | None = None
    handler: str
    model_file: str | None = None
    model_version: str | None = None
    requirements_file: str | None = None
    config_file: str | None = None


class Manifest(_Entry):
    """The whole file. Keys that are not ours are kept."""

    created_on: str | None = None
    runtime: str = "python"
    model: ManifestModel
    archiver_version: str | None = None

    def to_json(self) -> bytes:
        """Return the file's bytes; equal manifests give equal bytes."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=2).encode() + b"\n"


def create_manifest(name: str, version: str, handler: str, *, config_file: str, requirements_file: str | None) -> Manifest:
    """Describe an archive of ours."""
    model = ManifestModel(
        model_name=name, handler=handler, model_version=version, requirements_file=requirements_file, config_file=config_file
    )
    created_on = build_time().strftime("%d/%m/%Y %H:%M:%S")
    return Manifest(created_on=created_on, model=model, archiver_version=ARCHIVER_VERSION)


def parse_manifest(data: bytes, archive: object) -> Manifest:
    """Parse a manifest, ours or torch-model-archiver's; raises ArchiverError that names the ``archive``."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the file"
        raise ArchiverError(f"{archive}: {MANIFEST_FILE} is not a TorchServe manifest ({where}: {problem['msg']})") from None


def build_time() -> datetime:
    """Return the time that archives are stamped with: SOURCE_DATE_EPOCH if set, else a constant, so that equal inputs give equal bytes.

    See https://reproducible-builds.org/docs/source-date-epoch/. Never before 1980, where ZIP's calendar begins.
    """
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "0")
    try:
        return max(datetime.fromtimestamp(int(epoch), UTC), _EARLIEST_ZIP_TIME)
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"SOURCE_DATE_EPOCH is {epoch!r}; it must be a number of seconds since 1970") from None
