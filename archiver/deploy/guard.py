"""Own a server's process tree: stop all of it when told to, or when whoever started it is gone.

Run as a script, ``python guard.py PID_FILE COMMAND…``, with a pipe on standard input. The end of the pipe means "stop": its owner closed
it, or died in any way at all. Between owner and server there has to be a process of ours, because nothing else sees to all three cases:

* the owner is killed with SIGKILL: no code of the owner runs, but its pipe closes;
* the JVM is killed: its workers are orphans, which Linux hands to the nearest "child subreaper" (``prctl(2)``), this process;
* a worker ignores its dead frontend, because it is loading weights: it is killed here.

Stand-alone on purpose (standard library and psutil): it must start fast and from any directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil

# TorchServe takes 3 to 5 s to stop by itself; the rest is for a loaded machine.
STOP_TIMEOUT_S = 15.0
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def main(pid_file: Path, command: list[str]) -> int:
    """Run ``command`` until it ends or is to stop; return its exit status when nothing of its tree is left."""
    _adopt_orphans()
    stop = threading.Event()
    # Ctrl-C and a terminal's end are the owner's business (a handler that does nothing, since the server would inherit SIG_IGN); a SIGTERM
    # means the same as the end of the pipe.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGHUP, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    pid_file.write_text(str(server.pid))
    threading.Thread(target=_set_at_end_of_input, args=(stop,), daemon=True).start()
    threading.Thread(target=_stop_when_set, args=(stop, server), daemon=True).start()
    status = server.wait()
    _kill_descendants()
    return status if status >= 0 else 128 - status


def _set_at_end_of_input(stop: threading.Event) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    stop.set()


def _stop_when_set(stop: threading.Event, server: subprocess.Popen[bytes]) -> None:
    stop.wait()
    server.terminate()
    try:
        server.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()


def _adopt_orphans() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_descendants() -> None:
    # Again until none is left: a process may have forked between the listing and the kill, and its children come here.
    while children := psutil.Process().children(recursive=True):
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=1)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
