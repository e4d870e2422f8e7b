"""How a checkpoint says that its weights are quantized: ``quantization_config`` in its config.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.errors import ConfigError


@dataclass(frozen=True)
class StoredQuantization:
    """``method`` is the checkpoint's ``quant_method`` ("gptq", "compressed-tensors" …), ``settings`` all that it says with it."""

    method: str
    settings: Mapping[str, Any]


def find_quantization(config: Mapping[str, Any]) -> StoredQuantization | None:
    """Return what a config.json says of quantized weights; None if they are plain. Raises ConfigError if it does not say which kind.

    Early compressed-tensors checkpoints call the section ``compression_config``; models of several parts have it in ``text_config``.
    """
    parts = [config, config.get("text_config") or {}]
    found = [part[key] for part in parts for key in ("quantization_config", "compression_config") if part.get(key)]
    if not found:
        return None
    settings = found[0]
    if not isinstance(settings, Mapping):
        raise ConfigError(f"quantization_config in config.json must be an object, not {type(settings).__name__}")
    method = settings.get("quant_method") or _unnamed_method(settings)
    if not isinstance(method, str):
        raise ConfigError("quantization_config in config.json lacks quant_method, which says how its weights are to be read")
    return StoredQuantization(method, settings)


def _unnamed_method(settings: Mapping[str, Any]) -> str | None:
    """bitsandbytes did not name itself at first."""
    return "bitsandbytes" if settings.get("load_in_4bit") or settings.get("load_in_8bit") else None
