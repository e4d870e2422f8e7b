"""TorchServe's keys: read where the server writes them, sent with each request, renewed when they expire.

With token authorization on, the frontend writes ``key_file.json`` into its working directory: a key for inference, one for management,
which expire (after ``token_expiration_min``, an hour by default), and the ``API`` key, which does not, and for which the management
address hands out new ones: ``GET /token?type=management`` rewrites the file and answers nothing else. A wrong or expired key is a 400.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx

Purpose = Literal["management", "inference"]


@dataclass(frozen=True)
class KeyFile:
    """A server's ``key_file.json``; read afresh each time, since the server rewrites it."""

    path: Path

    def key(self, purpose: Purpose | Literal["API"]) -> str | None:
        """Return a key, or None as long as the file is absent, half written or no key file. Raises OSError if we may not read it."""
        try:
            key = json.loads(self.path.read_text())[purpose]["key"]
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        return key if isinstance(key, str) and key.isascii() else None


class KeyAuth(httpx.Auth):
    """Send a server's key with each request; if it is refused, read the file again, have the key renewed, and try once more.

    ``management_url`` is the address that renews. For httpx clients of both kinds.
    """

    requires_response_body = True

    def __init__(self, keys: KeyFile, purpose: Purpose, management_url: str) -> None:
        self._keys = keys
        self._purpose: Purpose = purpose
        self._renewal_url = f"{management_url.rstrip('/')}/token"

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield the request, and after a refusal the renewal and the request again."""
        sent = self._sign(request, self._keys.key(self._purpose))
        response = yield request
        if not is_key_refused(response):
            return
        if self._keys.key(self._purpose) == sent and (renewer := self._keys.key("API")):
            renewal = httpx.Request("GET", self._renewal_url, params={"type": self._purpose})
            self._sign(renewal, renewer)
            yield renewal
        if self._keys.key(self._purpose) != sent:
            self._sign(request, self._keys.key(self._purpose))
            yield request

    @staticmethod
    def _sign(request: httpx.Request, key: str | None) -> str | None:
        if key:
            request.headers["Authorization"] = f"Bearer {key}"
        return key


def is_key_refused(response: httpx.Response) -> bool:
    """Whether the server did not accept the request's key."""
    return response.status_code == httpx.codes.BAD_REQUEST and "InvalidKeyException" in response.text
