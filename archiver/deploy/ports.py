"""The five ports of one server, and whether they are free."""

from __future__ import annotations

import errno
import random
import socket
from dataclasses import astuple, dataclass

from archiver.deploy.settings import ServerSettings
from archiver.errors import UsageError

_NUM_PORTS = 5
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Ports:
    """Consecutive TCP ports: scripts rely on their order, so it never changes."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int

    @classmethod
    def starting_at(cls, port: int) -> Ports:
        """Return ``port`` for inference and the four that follow it."""
        return cls(*range(port, port + _NUM_PORTS))


def claim_ports(port: int, settings: ServerSettings = ServerSettings()) -> Ports:
    """Return the five ports that start at ``port``, or five free ones for 0.

    A check, not a reservation: the ports are free when this returns. Raises UsageError that names the port in use.
    """
    if port == 0:
        return _find_free(settings)
    if not 1 <= port <= 65535 - _NUM_PORTS + 1:
        raise UsageError(f"port {port} is out of range: five ports from it on are used, so choose 1 to {65535 - _NUM_PORTS + 1}")
    ports = Ports.starting_at(port)
    taken = _first_taken(ports, settings)
    if taken is not None:
        needed = f"{port} to {port + _NUM_PORTS - 1}"
        raise UsageError(f"port {taken} is in use: marquee needs {needed}; stop what listens there, or choose another --port")
    return ports


def _find_free(settings: ServerSettings) -> Ports:
    # Below the range that Linux takes ports for outgoing connections from (32768 on), at random: servers that start together rarely meet.
    for _ in range(100):
        ports = Ports.starting_at(random.randrange(18000, 32000))
        if _first_taken(ports, settings) is None:
            return ports
    raise UsageError("found no five free ports in a row between 18000 and 32000")


def _first_taken(ports: Ports, settings: ServerSettings) -> int | None:
    hosts = (settings.host, settings.management_host, settings.metrics_host, _LOOPBACK, _LOOPBACK)
    addresses = zip(hosts, astuple(ports), strict=True)
    return next((port for address, port in addresses if not _is_free(address, port)), None)


def _is_free(host: str, port: int) -> bool:
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror:
        raise UsageError(f"{host}: no such address of this machine") from None
    with socket.socket(address[0], socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Java does: a port in TIME_WAIT is free
        try:
            probe.bind(address[4])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise UsageError(f"cannot listen at {host}, port {port}: {error.strerror}") from None
    return True
