"""From the address that a user has to the one that answers chats: a server, a model's URL, or an OpenAI base URL."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from archiver.errors import UsageError

SERVER_URL = "http://127.0.0.1:8080"
"""Where ``marquee serve`` answers unless it is told otherwise."""

Versions = Callable[[str], Mapping[str, str]]
"""From the URL of a management API to the models there, and the default version of each; raises ArchiverError."""

_PREDICTION = re.compile(r"/predictions/([^/]+)/([^/]+)(/v1)?")


def openai_base_url(url: str, model: str | None, versions: Versions) -> str:
    """Return the OpenAI base URL that ``url`` leads to.

    A server's root needs ``model`` (NAME or NAME:VERSION), or is asked through the management API on the next port, which only its own
    machine may reach. Raises UsageError that says what to add.
    """
    url = url.rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url} is no address of a server: write it as {SERVER_URL}")
    if prediction := _PREDICTION.fullmatch(parts.path):
        return url if prediction[3] else f"{url}/v1"
    if parts.path:
        return url  # another server's, which will say if it is none
    name, _, version = (model or "").partition(":")
    if not version:
        name, version = _find(name, versions, management_url(url))
    return f"{url}/predictions/{name}/{version}/v1"


def management_url(url: str) -> str:
    """Return where the management API of a server is that ``marquee serve`` started: on the next port."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{(parts.port or 80) + 1}"


def _find(name: str, versions: Versions, url: str) -> tuple[str, str]:
    found = versions(url)
    if name and name not in found:
        raise UsageError(f"no model {name!r} there: {_listed(found)}")
    if not name and len(found) != 1:
        raise UsageError(f"say which with --model: {_listed(found)}")
    name = name or next(iter(found))
    return name, found[name]


def _listed(found: Mapping[str, str]) -> str:
    return f"there are {', '.join(found)}" if found else "the server has no models"
