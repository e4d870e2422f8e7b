"""Checkpoints from the Hugging Face hub: safetensors, tokenizer and config files only."""

from __future__ import annotations

import re
from pathlib import Path

from archiver.errors import ArchiverError, UsageError
from archiver.package.checkpoint import INDEX, SERVED_FILES

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def is_hub_id(model: str) -> bool:
    """Whether ``model`` has the form ``owner/name``."""
    return _HUB_ID.fullmatch(model) is not None and not model.endswith(".mar")


def download_checkpoint(hub_id: str, *, revision: str | None = None) -> Path:
    """Fetch a checkpoint into the hub's cache, or find it there, and return its directory.

    Neither pickled weights nor code are fetched; who wants those downloads the model himself. Raises UsageError for an unknown or private
    model, ArchiverError when the hub cannot be reached or the package is missing.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise ArchiverError(f"{hub_id} would come from the Hugging Face hub: pip install huggingface_hub, or give a directory") from None
    patterns = [*SERVED_FILES, INDEX, "*.safetensors"]
    try:
        # The original, unconverted weights of some models are safetensors too, and would double the download.
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, ignore_patterns=["consolidated*", "original/*"]))
    except RevisionNotFoundError:
        raise UsageError(f"{hub_id} has no revision {revision!r}; see https://huggingface.co/{hub_id}/tree/main (--revision)") from None
    except RepositoryNotFoundError:
        raise UsageError(
            f"there is no directory {hub_id}, and no such model on the hub that you can read (gated or private: `hf auth login`)"
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ArchiverError(
            f"there is no directory {hub_id}, and the Hugging Face hub cannot be reached ({reason}); give a directory"
        ) from None
