"""What the user means by MODEL: a checkpoint directory, a GGUF file, an archive, or a model on the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from archiver.errors import UsageError
from archiver.package.checkpoint import check_checkpoint
from archiver.package.hub import GGUF_SUFFIX, download_checkpoint, download_gguf, is_hub_gguf, is_hub_id
from archiver.package.reader import is_archive, open_archive, read_manifest


@dataclass(frozen=True)
class Source:
    """Where the model lies (an absolute path), what it is, and the name that it would go by if the user gives none."""

    path: Path
    kind: Literal["checkpoint", "archive"]
    name: str


def resolve_model(model: str | Path, *, revision: str | None = None) -> Source:
    """Find ``model``; from the hub (``owner/name``, or ``owner/name/file.gguf``) it is downloaded (``revision``: a branch, tag or commit).

    Whether a checkpoint can be served depends on the configuration too, and is checked when it is packaged. Raises UsageError, in one line,
    for what is neither a directory, a GGUF file, an archive nor on the hub, or is a directory but no checkpoint.
    """
    path = Path(model).expanduser()
    if is_archive(path):
        with open_archive(path) as reader:
            return Source(path.resolve(), "archive", read_manifest(reader, path).model.model_name)
    if path.is_dir():
        check_checkpoint(path)
        return Source(path.resolve(), "checkpoint", path.resolve().name)
    if path.is_file() and path.suffix == GGUF_SUFFIX:
        return _gguf_source(path)
    if path.exists():
        raise UsageError(f"{model} is neither a checkpoint directory nor an archive (.mar) nor a GGUF file (.gguf)")
    if isinstance(model, str) and is_hub_gguf(model):
        return _gguf_source(download_gguf(model, revision=revision))
    if not isinstance(model, str) or not is_hub_id(model):
        raise UsageError(f"no such directory: {model} (a model on the Hugging Face hub has the form owner/name)")
    directory = download_checkpoint(model, revision=revision)
    check_checkpoint(directory)
    return Source(directory, "checkpoint", model.partition("/")[2])


def _gguf_source(file: Path) -> Source:
    check_checkpoint(file)
    # Not resolved: in the hub's cache the name is a link's, and the file's own a hash.
    return Source(file.absolute(), "checkpoint", file.stem)
