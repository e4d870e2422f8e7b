"""The configuration and the headers of a checkpoint, wherever it lies: what a plan needs of it, and a few kilobytes of gigabytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.package.checkpoint import CONFIG, INDEX, WEIGHTS
from archiver.package.hub import GGUF_SUFFIX
from archiver.package.reader import ArchiveReader, read_text_member
from archiver.package.tensors import StoredTensor, read_header
from handlers.gguf_file import GgufFile

_SAFETENSORS = ".safetensors"


@dataclass(frozen=True)
class Headers:
    """``config``: what config.json says, ``origin`` its file, for messages; ``tensors`` of the weights, None where there are none."""

    config: Mapping[str, Any]
    origin: str
    tensors: Mapping[str, StoredTensor] | None = None


def read_headers(reader: ArchiveReader, place: str, folder: str = "") -> Headers | GgufFile:
    """Return what the files of ``reader`` directly below ``folder`` (``model/``) say; ``place`` is what messages call them.

    Raises UsageError if they are no checkpoint, or damaged.
    """
    files = {path.removeprefix(folder): path for path in reader.sizes if path.startswith(folder) and "/" not in path.removeprefix(folder)}
    weights = [name for name in files if name.endswith(_SAFETENSORS)]
    ggufs = [name for name in files if name.endswith(GGUF_SUFFIX)]
    if ggufs and not weights:
        return _read_gguf(reader, [files[name] for name in ggufs], place)
    if CONFIG not in files:
        raise UsageError(f"{place} is no checkpoint: it has no {CONFIG}")
    origin = f"{place}/{files[CONFIG]}"
    return Headers(parse_config(read_text_member(reader, files[CONFIG]) or b"", origin), origin, _read_tensors(reader, files, place))


def parse_config(data: bytes, origin: str) -> dict[str, Any]:
    """Return a JSON object; raises UsageError, which names its ``origin``, for anything else."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise UsageError(f"{origin} is not JSON; download it again") from None
    if not isinstance(content, dict):
        raise UsageError(f"{origin} holds no JSON object; download it again")
    return content


def _read_gguf(reader: ArchiveReader, members: list[str], place: str) -> GgufFile:
    if len(members) > 1:
        raise UsageError(f"{place} holds {len(members)} GGUF files, and a model is one: name the one you mean")
    with reader.open(members[0]) as file:
        try:
            return GgufFile.read(file, reader.sizes[members[0]], Path(members[0]))
        except ValueError as error:
            raise UsageError(f"{place}/{members[0]} {error}") from None


def _read_tensors(reader: ArchiveReader, files: Mapping[str, str], place: str) -> dict[str, StoredTensor] | None:
    tensors: dict[str, StoredTensor] = {}
    for name in _weight_files(reader, files, place):
        with reader.open(files[name]) as file:
            try:
                tensors |= read_header(file, reader.sizes[files[name]]).tensors
            except (OSError, ValueError) as error:
                raise UsageError(f"{place}/{files[name]} {error}") from None
    return tensors or None


def _weight_files(reader: ArchiveReader, files: Mapping[str, str], place: str) -> list[str]:
    """Beside an index there may be files for other programs, with the same weights again. Shards must be there all, or not at all."""
    if INDEX not in files:
        return [WEIGHTS] if WEIGHTS in files else []
    index = parse_config(read_text_member(reader, files[INDEX]) or b"", f"{place}/{files[INDEX]}")
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise UsageError(f"{place}/{files[INDEX]} has no weight_map; download it again")
    shards = sorted(set(weight_map.values()))
    absent = [shard for shard in shards if shard not in files]
    if 0 < len(absent) < len(shards):
        raise UsageError(f"{place} lacks the shard {absent[0]} that {INDEX} lists; download it again")
    return [] if absent else shards
