"""Checkpoints from the Hugging Face hub: safetensors, tokenizer and config files only, or one GGUF file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archiver.errors import ArchiverError, UsageError
from archiver.package.checkpoint import INDEX, SERVED_FILES

GGUF_SUFFIX = ".gguf"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(model: str) -> bool:
    """Whether ``model`` has the form ``owner/name``."""
    return _HUB_ID.fullmatch(model) is not None and not model.endswith((".mar", GGUF_SUFFIX))


def is_hub_gguf(model: str) -> bool:
    """Whether ``model`` has the form ``owner/name/file.gguf``."""
    hub_id, _, file = model.rpartition("/")
    return _HUB_ID.fullmatch(hub_id) is not None and file.endswith(GGUF_SUFFIX)


def download_checkpoint(hub_id: str, *, revision: str | None = None) -> Path:
    """Fetch a checkpoint into the hub's cache, or find it there, and return its directory.

    Neither pickled weights nor code are fetched; who wants those downloads the model himself. Raises UsageError for an unknown or private
    model, ArchiverError when the hub cannot be reached or the package is missing.
    """
    patterns = [*SERVED_FILES, INDEX, "*.safetensors"]
    # The original, unconverted weights of some models are safetensors too, and would double the download.
    filters = {"allow_patterns": patterns, "ignore_patterns": ["consolidated*", "original/*"]}
    return _download(hub_id, revision, lambda hub: hub.snapshot_download(hub_id, revision=revision, **filters))


def download_gguf(model: str, *, revision: str | None = None) -> Path:
    """Fetch the file ``owner/name/file.gguf`` as ``download_checkpoint`` does a checkpoint, and return its path."""
    hub_id, _, file = model.rpartition("/")
    return _download(hub_id, revision, lambda hub: hub.hf_hub_download(hub_id, file, revision=revision))


def _download(hub_id: str, revision: str | None, fetch: Callable[[Any], str]) -> Path:
    try:
        import huggingface_hub
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise ArchiverError(f"{hub_id} would come from the Hugging Face hub: pip install huggingface_hub, or give a directory") from None
    try:
        return Path(fetch(huggingface_hub))
    except RevisionNotFoundError:
        raise UsageError(f"{hub_id} has no revision {revision!r}; see https://huggingface.co/{hub_id}/tree/main (--revision)") from None
    except RepositoryNotFoundError:
        raise UsageError(
            f"there is no directory {hub_id}, and no such model on the hub that you can read (gated or private: `hf auth login`)"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, EntryNotFoundError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ArchiverError(
            f"there is no directory {hub_id}, and the Hugging Face hub cannot be reached ({reason}); give a directory"
        ) from None
