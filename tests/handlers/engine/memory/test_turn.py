"""Real processes take turns on a GPU that is a file here: who reads its free memory has allocated before the next one reads."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from handlers.engine.memory.turn import exclusive, loading_turn
from handlers.errors import ConfigError

ROOT = Path(__file__).parents[4]
WORKER = """
import sys, time
from pathlib import Path
from handlers.engine.memory.turn import exclusive
root, gpu, uuids = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
print("ready", flush=True)
input()
for _ in range(5):
    with exclusive(uuids, root):
        free = int(gpu.read_text())
        time.sleep(0.005)
        gpu.write_text(str(free - free // 2))
"""


def start(root: Path, gpu: Path, *uuids: str) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(root), str(gpu), *uuids], cwd=ROOT, **pipes)  # type: ignore[call-overload]
    assert worker.stdout.readline() == "ready\n"
    return worker


def test_processes_never_size_their_caches_by_the_same_free_memory(tmp_path):
    gpu = tmp_path / "gpu"
    gpu.write_text(str(1 << 20))
    workers = [start(tmp_path, gpu, "a"), start(tmp_path, gpu, "b", "a"), start(tmp_path, gpu, "a", "c")]
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert int(gpu.read_text()) == 1 << 5  # 15 times half of what was left; two that read the same would leave more


def test_whoever_has_to_wait_says_so_and_those_on_another_gpu_do_not(tmp_path, caplog):
    entered = threading.Event()

    def second() -> None:
        with exclusive(["one"], tmp_path):
            entered.set()

    with caplog.at_level(logging.INFO), exclusive(["one"], tmp_path):
        with exclusive(["two"], tmp_path):
            pass
        thread = threading.Thread(target=second)
        thread.start()
        while "waiting for another engine to have loaded on GPU one" not in caplog.text:
            assert thread.is_alive()
        assert not entered.is_set()
    thread.join(30)
    assert entered.is_set()


def test_a_process_that_dies_ends_its_turn(tmp_path):
    code = WORKER.replace("time.sleep(0.005)", "import os; os._exit(3)")
    gpu = tmp_path / "gpu"
    gpu.write_text("8")
    dying = subprocess.run([sys.executable, "-c", code, str(tmp_path), str(gpu), "a"], cwd=ROOT, input="go\n", text=True, timeout=60)
    assert dying.returncode == 3
    with exclusive(["a"], tmp_path):
        pass


def test_the_locks_lie_in_a_directory_of_this_user_alone(tmp_path, monkeypatch):
    with exclusive(["a"], tmp_path):
        [directory] = tmp_path.iterdir()
    assert directory.stat().st_mode & 0o777 == 0o700
    stranger = os.getuid() + 1
    directory.rename(tmp_path / f"marquee-{stranger}")
    monkeypatch.setattr("os.getuid", lambda: stranger)
    with pytest.raises(ConfigError, match="belongs to another user"), exclusive(["a"], tmp_path):
        pass


def test_without_a_gpu_nobody_waits():
    with loading_turn() as one, loading_turn() as other:
        assert (one.kind, other.kind) == ("cpu", "cpu") or one.kind == "cuda"
