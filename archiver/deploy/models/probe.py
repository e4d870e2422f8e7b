"""Ask a version something before clients do: it warms up, and shows that it can answer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import httpx

from archiver.deploy.management import ModelStatus
from archiver.deploy.management.keys import KeyAuth
from archiver.deploy.running_server import RunningServer
from archiver.errors import ArchiverError, UsageError

_TIMES = 2  # the first answer may come by other ways than the following ones: kernels are built, caches filled
_TIMEOUT_S = 300.0
_MAX_SHOWN_CHARS = 300


class ProbeFailed(ArchiverError):
    """The version did not answer as it should."""


@dataclass(frozen=True)
class Probe:
    """The body of a request to the model's own URL."""

    body: bytes
    content_type: str = "application/json"

    @classmethod
    def from_file(cls, path: Path) -> Probe:
        """Read a body, JSON or not. Raises UsageError if there is no such file."""
        try:
            body = path.read_bytes()
        except OSError as error:
            raise UsageError(f"--probe {path}: cannot read it ({error.strerror})") from None
        return cls(body, "application/json" if _is_json(body) else "application/octet-stream")

    def send(self, server: RunningServer, model: ModelStatus) -> None:
        """Ask the version, more than once. Raises ProbeFailed with what it answers if that is not 2xx."""
        auth = KeyAuth(server.keys, "inference", server.management.url) if server.keys else None
        url = f"{server.inference_url}/predictions/{model.name}/{model.version}"
        with httpx.Client(auth=auth, timeout=_TIMEOUT_S, trust_env=False) as client:
            for _ in range(_TIMES):
                try:
                    response = client.post(url, content=self.body, headers={"Content-Type": self.content_type})
                except httpx.TransportError as error:
                    raise ProbeFailed(f"{model.name} {model.version} did not answer the probe at {url}: {error}") from None
                if not response.is_success:
                    raise ProbeFailed(
                        f"{model.name} {model.version} answers the probe with {response.status_code}: {_shown(response.text)}; "
                        "if the request is wrong, name another with --probe FILE"
                    )


TEXT_GENERATION = Probe(json.dumps({"inputs": "Hello", "parameters": {"max_new_tokens": 8}}).encode())
"""What every language model of ours can answer."""


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN_CHARS else f"{line[:_MAX_SHOWN_CHARS]}…"
