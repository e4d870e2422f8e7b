"""A Unix socket at which a running worker takes orders: a line of JSON in, a line of JSON out.

::

    {"command": "scale", "replicas": 2}  →  {"result": null}
    {"command": "scale", "replicas": 0}  →  {"error": "replicas must be …"}
"""

from __future__ import annotations

import contextlib
import inspect
import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingUnixStreamServer
from typing import Any

from handlers.errors import ConfigError, MarqueeError
from handlers.torchrun import frontend_pid
from handlers.worker_directory import control_socket, worker_directory

Commands = Mapping[str, Callable[..., Any]]
"""What each command does, with the other members of the JSON object as keyword arguments; results are JSON values."""

_MAX_LINE_BYTES = 1 << 20
_MAX_PATH_BYTES = 100

logger = logging.getLogger(__name__)


class ControlSocket:
    """Answer commands from threads of its own until it is closed. Whoever may open ``path`` may give them."""

    def __init__(self, path: Path, commands: Commands) -> None:
        path.unlink(missing_ok=True)
        try:
            with _address(path) as address:
                self._server = _Server(address, _Conversation)
        except OSError as error:
            raise ConfigError(f"cannot open the control socket {path}: {error}; set TMPDIR to a directory with a short path") from None
        self._server.commands = commands
        self._path = path
        threading.Thread(target=self._server.serve_forever, name="control socket", daemon=True).start()

    def close(self) -> None:
        """Stop listening; commands under way go on."""
        self._server.shutdown()
        self._server.server_close()
        self._path.unlink(missing_ok=True)


def open_control_socket(model: str, version: str, commands: Commands) -> ControlSocket:
    """Listen where those look who want something of this worker, which serves ``model``."""
    directory = worker_directory(frontend_pid(), model, version)
    directory.mkdir(parents=True, exist_ok=True)
    for left_behind in directory.glob("*.sock"):  # TorchServe kills its workers.
        if not _is_alive(int(left_behind.stem)):
            left_behind.unlink(missing_ok=True)
    return ControlSocket(control_socket(directory, os.getpid()), commands)


def send_command(path: Path, command: str, *, patience_s: float = 10.0, **arguments: Any) -> Any:
    """Give a worker an order and return its result, for which there are ``patience_s``.

    Raises MarqueeError with what the worker says, or if no worker listens.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience_s)
            with _address(path) as address:
                connection.connect(address)
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            line = connection.makefile("rb").readline()
    except OSError as error:
        raise MarqueeError(f"no worker answers at {path}: {error}") from error
    if not line:
        raise MarqueeError(f"the worker at {path} ended without an answer")
    answer = json.loads(line)
    if "error" in answer:
        raise MarqueeError(answer["error"])
    return answer["result"]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """Yield a name of the socket that is short enough (107 bytes, unix(7)); Linux has a short one for every directory."""
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES or sys.platform != "linux":
        yield str(path)
        return
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


class _Server(ThreadingUnixStreamServer):
    daemon_threads = True
    commands: Commands


class _Conversation(StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        while line := self.rfile.readline(_MAX_LINE_BYTES):
            with contextlib.suppress(OSError):  # whoever asked has not waited
                self.wfile.write(_answer(line, self.server.commands).encode() + b"\n")


def _answer(line: bytes, commands: Commands) -> str:
    try:
        arguments = json.loads(line)
        command = commands[arguments.pop("command")]
        inspect.signature(command).bind(**arguments)
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        return _error(f"not a command ({error}); commands: {', '.join(map(_usage, commands, commands.values()))}")
    try:
        return json.dumps({"result": command(**arguments)})
    except MarqueeError as error:
        return _error(str(error))
    except Exception as error:
        logger.exception("a command failed")
        return _error(f"{type(error).__name__}: {error}")


def _error(message: str) -> str:
    return json.dumps({"error": message})


def _usage(name: str, command: Callable[..., Any]) -> str:
    return f"{name}({', '.join(inspect.signature(command).parameters)})"
