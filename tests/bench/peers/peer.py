"""What a peer is: another server, installed into a directory of its own, that answers streamed ``/completions`` for a checkpoint."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tests.bench.load import Completions


@dataclass(frozen=True)
class Capacity:
    """What a server must hold: requests at once, and tokens of one request, prompt and output together."""

    streams: int
    context_tokens: int


@dataclass(frozen=True)
class Launch:
    """How a server is started: its command, what is special about its environment, where to look for status 200, how to ask it."""

    command: Sequence[str]
    health_url: str
    api: Completions
    environment: Mapping[str, str] = field(default_factory=dict)


class Peer(Protocol):
    """Another server."""

    def install(self) -> None:
        """Install it, unless it is there; needs PyPI. Raises subprocess.CalledProcessError."""

    def launch(self, checkpoint: Path, capacity: Capacity, threads: int) -> Launch:
        """Return the command line for a checkpoint; what must be made of it first (another file format) is made."""


def make_environment(directory: Path, packages: Sequence[str]) -> Path:
    """Return the ``bin`` of a virtual environment with ``packages``; made once, and again after a failure."""
    binaries, complete = directory / "venv" / "bin", directory / "venv" / "complete"
    if not complete.exists():
        subprocess.run([sys.executable, "-m", "venv", str(binaries.parent)], check=True)
        subprocess.run([str(binaries / "python"), "-m", "pip", "install", "--quiet", *packages], check=True)
        complete.touch()
    return binaries


def free_port() -> int:
    """Return a TCP port of this machine's that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
