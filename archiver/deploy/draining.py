"""Let workers finish what they are at, before a server stops."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from handlers.control_socket import send_command
from handlers.errors import MarqueeError

# Beyond the time for requests: a continuous worker then ends its engine, and hands over the last errors.
_ENDING_S = 15.0


def drain_workers(sockets: Sequence[Path], timeout_s: float) -> bool:
    """Have the workers behind these control sockets refuse new requests and finish the others within ``timeout_s``, all at once.

    Return whether all that took the order answered every request in full. One that does not take it is gone, or hangs.
    """
    pool = ThreadPoolExecutor(max(len(sockets), 1))
    try:
        return all(list(pool.map(lambda socket: _drain(socket, timeout_s), sockets)))  # a list: one that gives up ends no other's time
    finally:
        pool.shutdown(wait=False)  # When this is interrupted the workers are about to end, and with them the waiting.


def _drain(socket: Path, timeout_s: float) -> bool:
    try:
        return bool(send_command(socket, "drain", timeout_s=timeout_s, patience_s=timeout_s + _ENDING_S))
    except MarqueeError:
        return True
