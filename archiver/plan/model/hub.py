"""A model's configuration and headers from the Hugging Face hub: kilobytes, never its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archiver.errors import UsageError
from archiver.package.checkpoint import CONFIG
from archiver.package.hub import from_hub
from archiver.package.tensors import StoredTensor
from archiver.plan.model.headers import Headers, parse_config


def hub_headers(hub_id: str, revision: str | None = None) -> Headers:
    """Fetch what a plan needs of ``owner/name``; raises UsageError and ArchiverError as a download does.

    A model without safetensors is known by its configuration alone.
    """
    config = Path(from_hub(hub_id, revision, lambda hub: hub.hf_hub_download(hub_id, CONFIG, revision=revision)))
    origin = f"{hub_id}/{CONFIG}"
    tensors = from_hub(hub_id, revision, lambda hub: _fetch_tensors(hub, hub_id, revision))
    return Headers(parse_config(config.read_bytes(), origin), origin, tensors)


def _fetch_tensors(hub: Any, hub_id: str, revision: str | None) -> dict[str, StoredTensor] | None:
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    try:
        files = hub.get_safetensors_metadata(hub_id, revision=revision).files_metadata
    except NotASafetensorsRepoError:
        return None
    except SafetensorsParsingError as error:
        raise UsageError(f"{hub_id} has weights whose header cannot be read ({error}); report it to its owner") from None
    return {
        name: StoredTensor(tensor.dtype, tuple(tensor.shape), tuple(tensor.data_offsets))
        for file in files.values()
        for name, tensor in file.tensors.items()
    }
