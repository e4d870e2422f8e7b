"""Ask a server for chat completions over HTTP."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from archiver.deploy.chat.stream import ChatError, Chunk, error_from, read_chunks

# A long prompt, or a long queue, keeps a server silent for minutes; Ctrl-C is there for who does not want to wait.
_TIMEOUT = httpx.Timeout(10, connect=5, read=600)


class ChatClient:
    """One OpenAI base URL; ``auth`` must not read what is streamed. Not thread-safe: one answer at a time."""

    def __init__(self, base_url: str, auth: httpx.Auth | None = None, transport: httpx.BaseTransport | None = None) -> None:
        self.base_url = base_url
        headers = {"Content-Type": "application/json"}
        # A proxy from the environment has no business between a server and who tries it out.
        self._http = httpx.Client(base_url=base_url, auth=auth, headers=headers, timeout=_TIMEOUT, transport=transport, trust_env=False)

    def models(self) -> list[str]:
        """Return the names of the models behind this URL. Raises ChatError."""
        with self._explained():
            response = self._http.get("/models")
            if response.status_code != httpx.codes.OK:
                raise error_from(response.content, response.status_code)
        try:
            return [model["id"] for model in response.json()["data"]]
        except (ValueError, LookupError, TypeError):
            raise ChatError(f"{self.base_url} is no OpenAI base URL: it lists no models") from None

    def stream(self, body: dict[str, Any]) -> Generator[Chunk]:
        """Yield the answer to a chat completion's ``body`` as it comes; raises ChatError.

        Closing the generator closes the connection, by which a server knows that nobody waits any more.
        """
        content = json.dumps(body)  # ASCII: what is not valid UTF-8 on a command line cannot be encoded otherwise
        with self._explained(), self._http.stream("POST", "/chat/completions", content=content) as response:
            if response.status_code != httpx.codes.OK:
                raise error_from(response.read(), response.status_code)
            yield from read_chunks(response.iter_bytes())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            url = error.request.url  # not always under ours: keys are renewed elsewhere
            raise ChatError(
                f"cannot reach {url.scheme}://{url.netloc.decode()} ({error}): is the server running, and is this its address?"
            ) from None
        except httpx.TimeoutException:
            raise ChatError(f"{self.base_url} does not answer") from None
        except httpx.TransportError as error:
            raise ChatError(f"the server broke the answer off ({error})") from None
