"""Give a worker on this machine orders through its control socket, typed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from archiver.deploy.management import ManagementError
from handlers.control_socket import send_command
from handlers.errors import MarqueeError


@dataclass(frozen=True)
class Replica:
    """One engine of a continuous worker. ``sequences``: how many it runs or holds; ``ranks``: processes that share its model."""

    pid: int
    state: Literal["loading", "ready", "draining"]
    sequences: int
    ranks: int = 1


@dataclass(frozen=True)
class WorkerControl:
    """One worker's control socket. Every method raises ManagementError with what the worker says, or if none listens."""

    socket: Path

    @property
    def exists(self) -> bool:
        """Whether there is such a socket: a worker of ours has loaded there."""
        return self.socket.exists()

    def describe(self) -> dict[str, Any]:
        """Return what the worker says of itself."""
        answer: dict[str, Any] = _order(self.socket, "describe")
        return answer

    def replicas(self) -> tuple[Replica, ...]:
        """Return a continuous worker's engines; none if its engine runs inside the worker."""
        return tuple(Replica(**replica) for replica in self.describe()["replicas"])

    def scale(self, replicas: int) -> None:
        """Want this number of engines; returns at once."""
        _order(self.socket, "scale", replicas=replicas)

    def num_live(self) -> int:
        """Return how many requests a continuous worker's engines run or hold."""
        stats = _order(self.socket, "stats")
        return int(stats["running"] + stats["waiting"])

    def park(self, timeout_s: float) -> None:
        """Have a synchronous worker block in the next description that it is asked for, for so long at most: it then takes no request."""
        _order(self.socket, "park", timeout_s=timeout_s)

    def unpark(self) -> None:
        """Take ``park`` back."""
        _order(self.socket, "unpark")

    def is_parked(self) -> bool:
        """Whether a synchronous worker is blocked by ``park`` now."""
        return bool(self.describe().get("parked"))


def _order(socket: Path, command: str, **arguments: float) -> Any:
    try:
        return send_command(socket, command, **arguments)
    except MarqueeError as error:
        raise ManagementError(str(error)) from error
