"""Archives for TorchServe: find the model, check it, build the archive, look into one, verify one."""

from archiver.package.archive import ArchiveSpec, build_archive
from archiver.package.inspection import ArchiveInfo, inspect_archive
from archiver.package.source import Source, resolve_model
from archiver.package.verification import VerifyReport, verify_archive

__all__ = ["ArchiveInfo", "ArchiveSpec", "Source", "VerifyReport", "build_archive", "inspect_archive", "resolve_model", "verify_archive"]
