"""Checkpoints from the Hugging Face hub: safetensors, tokenizer and config files only, or one GGUF file."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from archiver.errors import ArchiverError, UsageError
from archiver.package.checkpoint import INDEX, SERVED_FILES

GGUF_SUFFIX = ".gguf"
T = TypeVar("T")
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
    return Path(from_hub(hub_id, revision, lambda hub: hub.snapshot_download(hub_id, revision=revision, **filters)))


def download_gguf(model: str, *, revision: str | None = None) -> Path:
    """Fetch the file ``owner/name/file.gguf`` as ``download_checkpoint`` does a checkpoint, and return its path."""
    hub_id, _, file = model.rpartition("/")
    return Path(from_hub(hub_id, revision, lambda hub: hub.hf_hub_download(hub_id, file, revision=revision)))


def from_hub(hub_id: str, revision: str | None, fetch: Callable[[Any], T]) -> T:
    """Return what ``fetch``, which is given the hub's package, gets of a model.

    Raises UsageError for an unknown or private model, revision or file, ArchiverError when the hub cannot be reached or the package is
    missing.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import (
            EntryNotFoundError,
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RemoteEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError:
        raise ArchiverError(f"{hub_id} would come from the Hugging Face hub: pip install huggingface_hub, or give a directory") from None
    try:
        return fetch(huggingface_hub)
    except RevisionNotFoundError:
        raise UsageError(f"{hub_id} has no revision {revision!r}; see https://huggingface.co/{hub_id}/tree/main (--revision)") from None
    except RepositoryNotFoundError:
        raise UsageError(
            f"there is no directory {hub_id}, and no such model on the hub that you can read (gated or private: `hf auth login`)"
        ) from None
    except RemoteEntryNotFoundError as error:
        raise UsageError(f"{hub_id} lacks a file ({_reason(error)}); see https://huggingface.co/{hub_id}/tree/main") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, EntryNotFoundError, OSError) as error:
        raise ArchiverError(
            f"there is no directory {hub_id}, and the Hugging Face hub cannot be reached ({_reason(error)}); give a directory"
        ) from None


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
