"""What the user decides about a server: who may reach it, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver.errors import UsageError

LOOPBACK = ("127.0.0.1", "::1", "localhost")

_LONGEST_DRAIN_S = 24 * 3600

# What an instance sets itself, from its ports, its models and the flags of the command line.
_DECIDED_KEYS = frozenset(
    {
        "inference_address",
        "management_address",
        "metrics_address",
        "grpc_inference_address",
        "grpc_inference_port",
        "grpc_management_address",
        "grpc_management_port",
        "disable_token_authorization",
        "model_store",
        "load_models",
    }
)


@dataclass(frozen=True)
class ServerSettings:
    """Addresses of the three APIs, keys, and ``properties``: settings of TorchServe's own, from ``--ts-config``.

    ``token_auth``: whether requests need a key; None means wherever inference or management listen beyond this machine.
    ``model_api``: whether models can be registered and removed over the management API.
    ``drain_timeout_s``: how long requests may go on once the server is told to stop.
    """

    host: str = "127.0.0.1"
    token_auth: bool | None = None
    log_level: str = "warn"
    properties: Mapping[str, str] = field(default_factory=dict)
    management_host: str = "127.0.0.1"
    metrics_host: str = "127.0.0.1"
    model_api: bool = False
    drain_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if self.management_host not in LOOPBACK and not self.needs_key:
            raise UsageError("--expose-management lets other machines stop and replace models: it does not go with --no-token-auth")
        if self.log_level not in ("debug", "info", "warn", "error"):
            raise UsageError(f"--log-level {self.log_level}: choose debug, info, warn or error")
        if not 0 <= self.drain_timeout_s <= _LONGEST_DRAIN_S:
            raise UsageError(f"--drain-timeout {self.drain_timeout_s:g}: give a number of seconds from 0 to {_LONGEST_DRAIN_S}")
        for key in sorted(_DECIDED_KEYS & self.properties.keys()):
            raise UsageError(f"--ts-config sets {key}, which marquee serve decides itself: leave it out; --host and --port move the server")

    @property
    def needs_key(self) -> bool:
        """Whether TorchServe asks each request for a key. Its metrics never need one."""
        is_public = self.host not in LOOPBACK or self.management_host not in LOOPBACK
        return is_public if self.token_auth is None else self.token_auth
