"""The addresses of a server's APIs: those that ``marquee serve`` starts have them on consecutive ports."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from archiver.errors import UsageError

# As archiver.deploy.ports orders them.
INFERENCE_TO_MANAGEMENT = 1
INFERENCE_TO_METRICS = 2
METRICS_TO_MANAGEMENT = -1


@dataclass(frozen=True)
class Address:
    """Where a server listens. ``port``: None where the URL names none."""

    scheme: str
    host: str
    port: int | None

    def neighbour(self, step: int) -> str:
        """Return the root of the API ``step`` ports after this one."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{min((self.port or 80) + step, 65535)}"


def parse_address(url: str) -> Address:
    """Return the address in a URL. Raises UsageError for what is no address of a server."""
    try:
        httpx.URL(url)  # which is how it will be asked
        parts = urlsplit(url)
        address = Address(parts.scheme, parts.hostname or "", parts.port)
        address.host.encode("idna")  # which is how it will be looked up
    except (ValueError, httpx.InvalidURL):
        address = None
    if address is None or address.scheme not in ("http", "https") or not address.host:
        raise UsageError(f"{url} is no address of a server: write it as http://HOST:PORT")
    return address


def neighbour(url: str, step: int) -> str:
    """Return the root of the API ``step`` ports after that of ``url``. Raises UsageError for what is no address of a server."""
    return parse_address(url).neighbour(step)
