"""Start an engine process, and talk to it without ever waiting for it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from dataclasses import asdict

from handlers.engine.process.child import start_child
from handlers.engine.process.placement import Placement
from handlers.engine.process.protocol import Load, Message, encode, message_reader
from handlers.engine.process.source import EngineSource

_READ_BYTES = 1 << 20
_LAST_MOMENT_S = 0.5


class EngineProcess:
    """A child process with an engine in it, from start to end. Not thread-safe.

    It ends with the thread that starts it, which therefore must live as long as the worker.
    """

    def __init__(self, source: EngineSource, placement: Placement) -> None:
        self._connection, theirs = socket.socketpair()
        self._connection.setblocking(False)
        self._reader = message_reader()
        self._outbox = bytearray()
        with theirs:
            self._process = start_child("handlers.engine.process.server", theirs.fileno(), variables=placement.environment())
        if placement.cores is not None:
            os.sched_setaffinity(self._process.pid, placement.cores)  # before it has imported anything that starts threads
        self.send(Load(asdict(source.sharing_gpus(placement.num_sharers))))

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def fileno(self) -> int:
        """The socket to wait at until there is something to ``exchange``."""
        return self._connection.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether some of what was sent waits for room in the socket."""
        return bool(self._outbox)

    def send(self, message: Message) -> None:
        """Send a message, or keep what does not fit into the socket for ``exchange``."""
        self._outbox += encode(message)
        self._flush()

    def exchange(self) -> list[Message]:
        """Send what was left to send, and return the messages that have come; raise EOFError once there will be no more."""
        self._flush()
        try:
            data = self._connection.recv(_READ_BYTES)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        if not data:
            raise EOFError
        return self._reader.feed(data)

    def last_words(self) -> str:
        """Return how it ended; one that has hung up is given a moment for it."""
        try:
            code = self._process.wait(_LAST_MOMENT_S)
        except subprocess.TimeoutExpired:
            return "it hung up"
        if code >= 0:
            return f"exit code {code}"
        hint = ", as the kernel kills when memory runs out" if code == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-code).name}{hint}"

    def end(self) -> None:
        """Hang up and kill it, whatever it does."""
        self._connection.close()
        self._process.kill()

    def is_gone(self, timeout_s: float = 0.0) -> bool:
        """Whether it has ended, at least after ``timeout_s``. Asking is what removes it from the system's table."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _flush(self) -> None:
        """Send what fits. A process that has died takes everything."""
        try:
            sent = self._connection.send(self._outbox) if self._outbox else 0
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._outbox)
        del self._outbox[:sent]
