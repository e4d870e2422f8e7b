"""A server's processes: start them, put them to sleep while others are measured, weigh them, stop them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.bench.peers.peer import Launch

_READY_WITHIN_S = 900.0  # vLLM compiles
_STOPS_WITHIN_S = 15.0


class DidNotStart(Exception):
    """A server ended, or was not ready in time."""


@dataclass(frozen=True)
class ProcessTree:
    """A process and all below it. Threads that wait by spinning, as those of OpenMP do, take nothing of the machine while it sleeps."""

    pid: int

    def sleep(self) -> None:
        """Stop them where they are (SIGSTOP)."""
        self._signal(signal.SIGSTOP)

    def wake(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def rss_bytes(self) -> int:
        """Return the resident memory of all; what they share counts for each."""
        total = 0
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total

    def stop(self) -> None:
        """End all of them, by force where they do not."""
        self.wake()
        processes = self._processes()
        self._signal(signal.SIGTERM)
        _, alive = psutil.wait_procs(processes, _STOPS_WITHIN_S)
        for process in alive:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(alive)

    def _signal(self, number: signal.Signals) -> None:
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def _processes(self) -> list[psutil.Process]:
        try:
            root = psutil.Process(self.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextmanager
def running(launch: Launch, log: Path) -> Iterator[ProcessTree]:
    """Run a server from its being ready to the end of the block; what it prints goes to ``log``. Raises DidNotStart."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            launch.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | launch.environment,
            start_new_session=True,  # Ctrl-C is for us, who then stop it
        )
    tree = ProcessTree(process.pid)
    try:
        _wait_until_ready(process, launch.health_url, log)
        yield tree
    finally:
        tree.stop()


def _wait_until_ready(process: subprocess.Popen[bytes], health_url: str, log: Path) -> None:
    deadline = time.monotonic() + _READY_WITHIN_S
    while not _is_healthy(health_url):
        if process.poll() is not None or time.monotonic() > deadline:
            raise DidNotStart(f"{' '.join(process.args)}\n{log.read_text(errors='replace')[-2000:]}")  # type: ignore[arg-type]
        time.sleep(0.5)


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
