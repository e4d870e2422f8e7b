"""Start a module of ours as a child process, which holds one end of a socket pair and ends with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping


def start_child(module: str, *fds: int, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start ``python -m module`` with more environment variables. Its arguments: this process's id, and file descriptors that it inherits.

    It ends with the thread that starts it (``end_with_parent``).
    """
    # The parent's path, so that it imports what the parent imports: first of all the `handlers` that came with the archive.
    environment = os.environ | variables | {"PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    command = [sys.executable, "-P", "-m", module, *map(str, (os.getpid(), *fds))]
    return subprocess.Popen(command, pass_fds=fds, env=environment, stdin=subprocess.DEVNULL)


def adopt_socket(fd: int) -> socket.socket:
    """Return the socket behind an inherited file descriptor, which no child of this process inherits in turn."""
    connection = socket.socket(fileno=fd)
    connection.set_inheritable(False)
    return connection


def end_with_parent(parent_pid: int) -> None:
    """Leave Ctrl-C, which reaches the whole process group, to the parent, and have the kernel end this process with it (prctl(2))."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it ended before that
        os._exit(0)
