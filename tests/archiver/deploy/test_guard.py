"""The guard around a small family of processes: however it ends, nobody is left."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from archiver.deploy import guard

# A parent like the frontend, and a child like a worker that loads weights: it hears no SIGTERM and does not notice a dead parent.
CHILD = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
PARENT = f"""
    import signal, subprocess, sys
    child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
    child.stdout.readline()
    print(child.pid, flush=True)
    signal.pause()
"""


class Family:
    """A guard, the parent that it owns and the parent's child."""

    def __init__(self, pid_file: Path) -> None:
        command = [sys.executable, "-P", guard.__file__, str(pid_file), sys.executable, "-c", textwrap.dedent(PARENT)]
        self.guard = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.guard.stdout and self.guard.stdin
        self.child = psutil.Process(int(self.guard.stdout.readline()))
        self.parent = psutil.Process(int(pid_file.read_text()))
        self.stdin = self.guard.stdin


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path / "pid")
    yield family
    for process in (family.parent, family.child, psutil.Process(family.guard.pid) if family.guard.poll() is None else None):
        if process is not None and process.is_running():
            process.kill()


ENDS: dict[str, tuple[Callable[[Family], None], int]] = {
    "input ends": (lambda family: family.stdin.close(), 128 + signal.SIGTERM),
    "guard gets a SIGTERM": (lambda family: family.guard.terminate(), 128 + signal.SIGTERM),
    "parent is killed": (lambda family: family.parent.kill(), 128 + signal.SIGKILL),
}


@pytest.mark.parametrize(("end", "status"), ENDS.values(), ids=ENDS.keys())
def test_nobody_is_left(family, end, status):
    assert family.child.ppid() == family.parent.pid
    end(family)
    assert family.guard.wait(timeout=20) == status
    _, alive = psutil.wait_procs([family.parent, family.child], timeout=5)
    assert not alive


def test_ctrl_c_in_the_terminal_is_left_to_the_owner(family):
    family.guard.send_signal(signal.SIGINT)
    family.stdin.write("anything but the end")
    family.stdin.flush()
    assert family.parent.is_running()
    assert family.guard.poll() is None


def test_a_server_that_does_not_stop_is_killed_after_a_while(tmp_path):
    command = [sys.executable, "-c", f"import runpy, sys; sys.argv = sys.argv[1:]; {PATIENCE}", guard.__file__, str(tmp_path / "pid")]
    stubborn = subprocess.Popen([*command, sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert stubborn.stdout and stubborn.stdin
    stubborn.stdout.readline()
    stubborn.stdin.close()
    assert stubborn.wait(timeout=20) == 128 + signal.SIGKILL


# The guard with less patience: its module, with a shorter limit, run with the arguments of the command line.
PATIENCE = """
from pathlib import Path
guard = runpy.run_path(sys.argv[0])
guard['_stop_when_set'].__globals__['STOP_TIMEOUT_S'] = 0.2
sys.exit(guard['main'](Path(sys.argv[1]), sys.argv[2:]))
"""
