"""What the user means by MODEL, read as facts: from configuration and headers, never from weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.package.checkpoint import CONFIG
from archiver.plan.model.computed import compute_facts
from archiver.plan.model.facts import ModelFacts
from archiver.plan.model.settings import Settings


def read_model(model: str | Path, *, revision: str | None = None) -> ModelFacts:
    """Return the facts of a model.

    ``model``: a checkpoint directory, with or without its weights, a config.json, a GGUF file, an archive, or ``owner/name`` on the hub
    (``revision``: a branch, tag or commit). Raises UsageError, in one line, for anything else, and for what is damaged.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return compute_facts(_read_config(path / CONFIG), path.resolve().name)
    if path.is_file() and path.suffix == ".json":
        return compute_facts(_read_config(path), path.stem)
    raise UsageError(f"no such directory: {model}")


def _read_config(file: Path) -> Settings:
    content: Any = json.loads(file.read_bytes())
    return Settings(content, str(file))
