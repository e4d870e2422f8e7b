"""The key that goes with each request, into the Authorization header: one that was given, or one that is renewed when it expires."""

from __future__ import annotations

from collections.abc import Generator

import httpx

from archiver.deploy.management.keys import KeyAuth
from archiver.errors import UsageError


class GivenKey(httpx.Auth):
    """One key, for as long as it lasts. Raises UsageError for what no header can hold."""

    def __init__(self, key: str) -> None:
        if not (key.isascii() and key.isprintable()):
            raise UsageError(
                '--key: a key has ASCII characters only; write what key_file.json has under "inference", or name that with --key-file'
            )
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield the request with the key."""
        request.headers["Authorization"] = f"Bearer {self._key}"
        yield request


class StreamKeyAuth(KeyAuth):
    """KeyAuth for answers that are streamed: only refusals are read before they are handed on. For synchronous clients."""

    requires_response_body = False

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Yield what ``auth_flow`` does."""
        flow = self.auth_flow(request)
        request = next(flow)
        while True:
            response = yield request
            if response.is_error:
                response.read()
            try:
                request = flow.send(response)
            except StopIteration:
                return
