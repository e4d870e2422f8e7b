"""What the user means by MODEL, read as facts: from configuration and headers, never from weights."""

from __future__ import annotations

from pathlib import Path

from archiver.errors import UsageError
from archiver.package.checkpoint import CONFIG
from archiver.package.hub import GGUF_SUFFIX, is_hub_id
from archiver.package.members import MODEL_DIR
from archiver.package.reader import is_archive, open_archive, read_manifest
from archiver.plan.model.computed import compute_facts, language_model, read_scheme
from archiver.plan.model.exact import with_headers
from archiver.plan.model.facts import ModelFacts
from archiver.plan.model.gguf import gguf_facts
from archiver.plan.model.headers import Headers, parse_config, read_headers
from archiver.plan.model.hub import hub_headers
from archiver.plan.model.settings import Settings
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile


def read_model(model: str | Path, *, revision: str | None = None) -> ModelFacts:
    """Return the facts of a model.

    ``model``: a checkpoint directory, with or without its weights, a config.json, a GGUF file, an archive, or ``owner/name`` on the hub, of
    which only the configuration and headers are fetched (``revision``: a branch, tag or commit). Raises UsageError, in one line, for
    anything else, and for what is damaged; ArchiverError where the hub cannot be reached.
    """
    path = Path(model).expanduser()
    if path.exists():
        try:
            return _read_local(path)
        except OSError as error:
            raise UsageError(f"cannot read {error.filename or path}: {error.strerror}") from None
    if not isinstance(model, str) or not is_hub_id(model):
        raise UsageError(f"no such directory: {model} (a model on the Hugging Face hub has the form owner/name)")
    return _facts(hub_headers(model, revision), model.partition("/")[2])


def _read_local(path: Path) -> ModelFacts:
    if is_archive(path):
        with open_archive(path) as reader:
            return _facts(read_headers(reader, str(path), f"{MODEL_DIR}/"), read_manifest(reader, path).model.model_name)
    if path.is_file():
        return _read_file(path)
    if not (path / CONFIG).is_file() and not any(path.glob(f"*{GGUF_SUFFIX}")):  # or all that lies below it would be listed first
        raise UsageError(f"{path} is no checkpoint: it has no {CONFIG}")
    with open_archive(path) as reader:
        return _facts(read_headers(reader, str(path)), path.resolve().name)


def _read_file(path: Path) -> ModelFacts:
    if path.suffix == ".json":
        return _facts(Headers(parse_config(path.read_bytes(), str(path)), str(path)), path.stem)
    if path.suffix != GGUF_SUFFIX:
        raise UsageError(f"{path} is neither a checkpoint directory nor an archive (.mar), a GGUF file (.gguf) or a config.json")
    try:
        return gguf_facts(GgufFile.open(path), path.stem)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _facts(found: Headers | GgufFile, name: str) -> ModelFacts:
    if isinstance(found, GgufFile):
        return gguf_facts(found, name)
    settings = Settings(found.config, found.origin)
    computed = compute_facts(settings, name)
    if found.tensors is None:
        return computed
    is_tied = language_model(settings).flag("tie_word_embeddings")
    return with_headers(computed, found.tensors, read_scheme(settings), is_tied=is_tied)
