"""What the user means by MODEL: a checkpoint directory, an archive, or a model on the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from archiver.errors import UsageError
from archiver.package.checkpoint import read_config
from archiver.package.hub import download_checkpoint, is_hub_id
from archiver.package.reader import is_archive, open_archive, read_manifest


@dataclass(frozen=True)
class Source:
    """Where the model lies (an absolute path), what it is, and the name that it would go by if the user gives none."""

    path: Path
    kind: Literal["checkpoint", "archive"]
    name: str


def resolve_model(model: str | Path, *, revision: str | None = None) -> Source:
    """Find ``model``; a hub id is downloaded (``revision``: a branch, tag or commit there).

    Whether a checkpoint can be served depends on the configuration too, and is checked when it is packaged. Raises UsageError, in one line,
    for what is neither a directory, an archive nor a hub id, or is a directory but no checkpoint.
    """
    path = Path(model).expanduser()
    if is_archive(path):
        with open_archive(path) as reader:
            return Source(path.resolve(), "archive", read_manifest(reader, path).model.model_name)
    if path.is_dir():
        read_config(path)
        return Source(path.resolve(), "checkpoint", path.resolve().name)
    if path.exists():
        raise UsageError(f"{model} is neither a checkpoint directory nor an archive (.mar)")
    if not isinstance(model, str) or not is_hub_id(model):
        raise UsageError(f"no such directory: {model} (a model on the Hugging Face hub has the form owner/name)")
    directory = download_checkpoint(model, revision=revision)
    read_config(directory)
    return Source(directory, "checkpoint", model.partition("/")[2])
