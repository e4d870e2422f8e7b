"""A TorchServe that runs on this machine as this user: where it keeps its models, keys, logs and workers.

All of it is read from the frontend's process, so that it holds for a server that ``torchserve --start`` has started as well.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import TYPE_CHECKING

from archiver.deploy.addresses import parse_address
from archiver.deploy.management import KeyFile, ModelStatus, WorkerStatus
from archiver.deploy.worker_control import WorkerControl
from handlers.worker_directory import control_socket, worker_directory

if TYPE_CHECKING:
    import psutil

_MAIN_CLASS = "org.pytorch.serve.ModelServer"


@dataclass(frozen=True)
class LocalServer:
    """What a frontend's command line, environment and current directory tell. ``temp``: the temp directory of its workers."""

    pid: int
    directory: Path
    model_store: Path
    config_file: Path | None
    logs: Path
    temp: Path

    @classmethod
    def from_process(cls, pid: int, command: Sequence[str], environment: Mapping[str, str], directory: Path) -> LocalServer:
        """Read what TorchServe 0.12 (``ts/model_server.py``) tells its frontend; relative paths start at ``directory``."""
        options = dict(zip(command, command[1:], strict=False))
        config = options.get("-f") or environment.get("TS_CONFIG_FILE")
        temp = next((environment[name] for name in ("TMPDIR", "TEMP", "TMP") if environment.get(name)), "/tmp")
        return cls(
            pid=pid,
            directory=directory,
            model_store=directory / options.get("-s", "."),
            config_file=directory / config if config else None,
            logs=directory / environment.get("LOG_LOCATION", "logs"),
            temp=directory / temp,
        )

    @property
    def keys(self) -> KeyFile | None:
        """The server's keys, if token authorization is on."""
        path = self.directory / "key_file.json"
        return KeyFile(path) if path.exists() else None

    @property
    def worker_log(self) -> Path:
        """The log that has the workers' output: ours (config/log4j2.xml), else that of TorchServe's own configuration."""
        ours = self.logs / "torchserve.log"
        return ours if ours.exists() else self.logs / "model_log.log"

    def properties(self) -> dict[str, str]:
        """Return the settings in the server's config.properties, as far as it can be read."""
        if self.config_file is None or not self.config_file.is_file():
            return {}
        lines = self.config_file.read_text(errors="replace").splitlines()
        pairs = (line.split("=", 1) for line in lines if "=" in line and not line.lstrip().startswith("#"))
        return {key.strip(): value.strip() for key, value in pairs}

    def control(self, model: ModelStatus, worker: WorkerStatus) -> WorkerControl:
        """Return the way to give one of the server's workers orders."""
        return WorkerControl(control_socket(worker_directory(self.pid, model.name, model.version, self.temp), worker.pid))


def find_local_server(management_url: str) -> LocalServer | None:
    """Return the server of this user and machine that listens at ``management_url``; None if that is another's, or psutil is missing."""
    address = parse_address(management_url)
    if not util.find_spec("psutil") or not _is_here(address.host):
        return None
    import psutil

    for process in _frontends():
        # Processes end while they are looked at, and those of containers cannot always be.
        with contextlib.suppress(psutil.Error, OSError):
            if address.port in _listening_ports(process) and _shares_files(process.pid):
                return LocalServer.from_process(process.pid, process.cmdline(), process.environ(), Path(process.cwd()))
    return None


def _frontends() -> Iterator[psutil.Process]:
    import psutil

    for process in psutil.process_iter(["uids", "cmdline"]):
        uids, command = process.info["uids"], process.info["cmdline"]
        if uids and uids.real == os.getuid() and _MAIN_CLASS in (command or ()):
            yield process


def _listening_ports(process: psutil.Process) -> set[int]:
    import psutil

    return {connection.laddr.port for connection in process.net_connections("tcp") if connection.status == psutil.CONN_LISTEN}


def _is_here(host: str) -> bool:
    """Whether a host's name or address is one of this machine's."""
    import psutil

    own = {address.address.partition("%")[0] for addresses in psutil.net_if_addrs().values() for address in addresses}
    try:
        return any(str(found[4][0]) in own for found in socket.getaddrinfo(host, None))
    except OSError:
        return False


def _shares_files(pid: int) -> bool:
    """Whether a process sees the same files as this one; in a container it does not, and its paths mean nothing here."""
    if sys.platform != "linux":
        return True
    return os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino
