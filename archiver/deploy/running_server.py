"""A running TorchServe as whoever manages it sees it: its APIs, and what is known of it if it runs on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from archiver.deploy.addresses import INFERENCE_TO_MANAGEMENT, neighbour, parse_address
from archiver.deploy.local_server import LocalServer, find_local_server
from archiver.deploy.management import KeyFile, ManagementClient
from archiver.errors import UsageError

MANAGEMENT_URL = "http://127.0.0.1:8081"
"""Where the management API is unless TorchServe is told otherwise."""


@dataclass(frozen=True)
class RunningServer:
    """``local`` is None for a server on another machine, in a container, or of another user."""

    management: ManagementClient
    inference_url: str
    keys: KeyFile | None = None
    local: LocalServer | None = None

    @classmethod
    def at(cls, url: str = MANAGEMENT_URL, *, key_file: Path | None = None, inference_url: str | None = None) -> RunningServer:
        """Return the server whose management API is at ``url``, without asking it yet.

        The key file of a server on this machine is found; so is its inference address. Another's is taken to be the port before.
        Raises UsageError for an address that is none or has no port, or a key file that is not there.
        """
        if not parse_address(url).port:
            raise UsageError(f"--url {url}: write the management API's address with its port, as {MANAGEMENT_URL}")
        if inference_url:
            parse_address(inference_url)
        if key_file and not key_file.is_file():
            raise UsageError(f"--key-file {key_file}: no such file; TorchServe writes it into the directory it was started in")
        local = find_local_server(url)
        keys = KeyFile(key_file) if key_file else local.keys if local else None
        return cls(ManagementClient(url, keys), (inference_url or _inference_url(url, local)).rstrip("/"), keys, local)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.management.close()


def _inference_url(management_url: str, local: LocalServer | None) -> str:
    configured = local.properties().get("inference_address") if local else None
    if configured:
        return configured.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    return neighbour(management_url, -INFERENCE_TO_MANAGEMENT)
