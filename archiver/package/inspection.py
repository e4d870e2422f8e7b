"""What is in an archive, ours or torch-model-archiver's, read from its members' headers without unpacking or importing anything."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from archiver.errors import ArchiverError
from archiver.package.manifest import Manifest
from archiver.package.members import MODEL_DIR
from archiver.package.model_config import CONFIG_FILE
from archiver.package.reader import ArchiveReader, open_archive, read_integrity_record, read_manifest, read_text_member
from archiver.package.tensors import read_header
from archiver.quantize.receipt import RECEIPT_FILE, Receipt
from handlers.gguf_file import GgufFile
from handlers.memory_ledger import PLAN_FILE

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf")


@dataclass(frozen=True)
class ArchiveInfo:
    """Facts about an archive; sizes in bytes. ``num_parameters`` counts the elements of all weights, ``dtypes`` the same by dtype.

    ``versions`` are those of the packages that it was tested with; ``is_hashed`` says whether it lists its members' hashes.
    ``quantization`` is the receipt of a checkpoint that ``marquee quantize`` made, ``planned_for`` the hardware that its plan names.
    """

    path: str
    format: str
    name: str
    version: str | None
    handler: str
    requirements: str | None
    frontend_keys: Mapping[str, Any]
    handler_section: Mapping[str, Any]
    architecture: str | None
    num_parameters: int
    dtypes: Mapping[str, int]
    weight_bytes: int
    total_bytes: int
    members: Mapping[str, int]
    versions: Mapping[str, str]
    is_hashed: bool
    quantization: Receipt | None
    planned_for: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as for JSON."""
        return asdict(self) | {"quantization": self.quantization.to_dict() if self.quantization else None}


def inspect_archive(path: Path) -> ArchiveInfo:
    """Describe an archive; raises UsageError if there is none, ArchiverError if it is damaged or not TorchServe's."""
    with open_archive(path) as reader:
        manifest = read_manifest(reader, path)
        model_config = _model_config(reader, manifest)
        record = read_integrity_record(reader)
        ggufs = list(_gguf_files(reader))
        dtypes = _dtypes(reader, ggufs)
        return ArchiveInfo(
            path=str(path),
            format="dir" if path.is_dir() else "mar",
            name=manifest.model.model_name,
            version=manifest.model.model_version,
            handler=manifest.model.handler,
            requirements=manifest.model.requirements_file,
            frontend_keys={key: value for key, value in model_config.items() if key != "handler"},
            handler_section=model_config.get("handler") or {},
            architecture=_architecture(reader, ggufs),
            num_parameters=sum(dtypes.values()),
            dtypes=dtypes,
            weight_bytes=sum(size for member, size in reader.sizes.items() if member.endswith(WEIGHT_SUFFIXES)),
            total_bytes=sum(reader.sizes.values()),
            members=dict(sorted(reader.sizes.items())),
            versions=record.versions if record else {},
            is_hashed=record is not None,
            quantization=_receipt(reader),
            planned_for=_planned_for(reader),
        )


def _model_config(reader: ArchiveReader, manifest: Manifest) -> dict[str, Any]:
    file = manifest.model.config_file or CONFIG_FILE
    try:
        content = yaml.safe_load(read_text_member(reader, file) or b"")
    except yaml.YAMLError as error:
        raise ArchiverError(f"{file} in the archive is not YAML: {' '.join(str(error).split())}") from None
    return content if isinstance(content, dict) else {}


def _gguf_files(reader: ArchiveReader) -> Iterator[GgufFile]:
    for member, size in reader.sizes.items():
        if not member.endswith(".gguf"):
            continue
        with reader.open(member) as file:
            try:
                yield GgufFile.read(file, size, Path(member))
            except ValueError as error:
                raise ArchiverError(f"{member} {error}") from None


def _architecture(reader: ArchiveReader, ggufs: Sequence[GgufFile]) -> str | None:
    if ggufs:
        return ggufs[0].architecture
    data = read_text_member(reader, f"{MODEL_DIR}/config.json") or read_text_member(reader, "config.json")
    try:
        config = json.loads(data or b"{}")
        return str(config["architectures"][0])
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def _receipt(reader: ArchiveReader) -> Receipt | None:
    path = f"{MODEL_DIR}/{RECEIPT_FILE}"
    data = read_text_member(reader, path)
    return None if data is None else Receipt.parse(data, path)


def _planned_for(reader: ArchiveReader) -> str | None:
    try:
        hardware = json.loads(read_text_member(reader, PLAN_FILE) or b"{}")["hardware"]
        return f"{hardware['count']} × {hardware['name']}"
    except (ValueError, KeyError, TypeError):
        return None


def _dtypes(reader: ArchiveReader, ggufs: Sequence[GgufFile]) -> dict[str, int]:
    elements: Counter[str] = Counter()
    for gguf in ggufs:
        elements.update(gguf.elements)
    for member, size in reader.sizes.items():
        if not member.endswith(".safetensors"):
            continue
        with reader.open(member) as file:
            try:
                elements.update(read_header(file, size).elements)
            except ValueError as error:
                raise ArchiverError(f"{member} {error}") from None
    return dict(sorted(elements.items()))
