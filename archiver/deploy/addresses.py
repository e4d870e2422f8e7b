"""Where the other APIs of a server are: those that ``marquee serve`` starts have them on consecutive ports."""

from __future__ import annotations

from urllib.parse import urlsplit

from archiver.errors import UsageError

# As archiver.deploy.ports orders them.
INFERENCE_TO_MANAGEMENT = 1
INFERENCE_TO_METRICS = 2
METRICS_TO_MANAGEMENT = -1


def neighbour(url: str, step: int) -> str:
    """Return the root of the API ``step`` ports after that of ``url``. Raises UsageError for what is no address of a server."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # a port that is no number
        host, port = None, None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"{url} is no address of a server: write it as http://127.0.0.1:8080")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{min((port or 80) + step, 65535)}"
