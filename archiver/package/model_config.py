"""``model-config.yaml``: TorchServe's frontend keys at the top level, ours in the ``handler:`` section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from archiver.errors import UsageError
from handlers.config import HandlerConfig, parse_handler_config
from handlers.errors import ConfigError

CONFIG_FILE = "model-config.yaml"

# How a handler class wants to be called. A worker that finds other values refuses to load, so they are refused here already.
_MODE_KEYS = frozenset({"continuousBatching", "asyncCommunication", "sequenceBatching"})
_CONTINUOUS_KEYS = _MODE_KEYS | {"batchSize", "minWorkers", "maxWorkers"}

_HEADER = """\
# Read by TorchServe (top level) and by the handler (the section `handler:`).
# What is not here has its default. To change it, build the archive again: its hashes cover this file.
"""


def load_model_config(file: Path | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read the user's YAML, lay ``settings`` over its ``handler:`` section, and check that section; raises UsageError."""
    content = _load_yaml(file) if file else {}
    section = _merge(content.get("handler") or {}, settings)
    merged = {**content, "handler": section} if section else content
    handler_config(merged)
    return merged


def handler_config(model_config: Mapping[str, Any]) -> HandlerConfig:
    """Return the ``handler:`` section with its defaults; raises UsageError that names the key."""
    try:
        return parse_handler_config(model_config)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def render_model_config(
    user: Mapping[str, Any], frontend_keys: Mapping[str, Any], handler: str, planned: Mapping[str, Any] | None = None
) -> bytes:
    """Return the file's bytes: the handler class's frontend keys, those of a plan and the user's over them, and the ``handler:`` section.

    Raises UsageError for a key whose value the class insists on.
    """
    fixed = _CONTINUOUS_KEYS if frontend_keys.get("continuousBatching") else _MODE_KEYS
    for key in sorted(fixed & user.keys()):
        wanted = frontend_keys.get(key, False)
        if user[key] != wanted:
            raise UsageError(
                f"{key}: {user[key]!r} does not fit {handler}, which needs {wanted!r}; leave the key out, or take another handler"
            )
    frontend = {**frontend_keys, **(planned or {}), **{key: value for key, value in user.items() if key != "handler"}}
    section = {"handler": user["handler"]} if user.get("handler") else {}
    content = {**dict(sorted(frontend.items())), **section}
    return (_HEADER + (yaml.safe_dump(content, sort_keys=False, allow_unicode=True) if content else "")).encode()


def _load_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror} (--config)") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not isinstance(content.get("handler") or {}, dict):
        raise UsageError(f"{file} must hold a mapping, with a mapping under `handler:` if it has one")
    return content


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged
