"""From the address that a user has to the one that answers chats: a server, a model's URL, or an OpenAI base URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlsplit

from archiver.errors import UsageError

Versions = Callable[[], Mapping[str, str]]
"""Tells which models a server has, and the default version of each; raises ArchiverError if it cannot."""

_PREDICTION = re.compile(r"/predictions/[^/]+/[^/]+(/v1)?")


def openai_base_url(url: str, model: str | None, versions: Versions) -> str:
    """Return the OpenAI base URL that ``url`` leads to.

    ``versions`` are asked for a server's root only, unless ``model`` is NAME:VERSION. Raises UsageError that says what to add.
    """
    url = url.rstrip("/")
    path = urlsplit(url).path
    if prediction := _PREDICTION.fullmatch(path):
        return url if prediction[1] else f"{url}/v1"
    if path:
        return url  # another server's, perhaps; its list of models will tell
    name, _, version = (model or "").partition(":")
    if not version:
        name, version = _find(name, versions())
    return f"{url}/predictions/{_segment(name)}/{_segment(version)}/v1"


def _segment(name: str) -> str:
    """Return a name as part of a path, whatever bytes it came from on the command line."""
    return quote(name, safe="", errors="surrogateescape")


def _find(name: str, found: Mapping[str, str]) -> tuple[str, str]:
    if name and name not in found:
        raise UsageError(f"no model {name!r} there: {_listed(found)}")
    if not name and len(found) != 1:
        raise UsageError(f"say which with --model: {_listed(found)}")
    name = name or next(iter(found))
    return name, found[name]


def _listed(found: Mapping[str, str]) -> str:
    return f"there are {', '.join(found)}" if found else "the server has no models"
