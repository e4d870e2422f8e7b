"""Producers run in a process of their own: what goes in and out, what an error becomes, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from archiver.errors import ArchiverError, UsageError
from archiver.quantize.producer import CalibrationSet, Job
from archiver.quantize.producers.process import run_producer


@pytest.fixture
def run(tmp_path: Path):
    """Return a function that runs a producer with the given body."""

    def run(body: str, **changes):
        file = tmp_path / "producer.py"
        file.write_text("def produce(job):\n" + "".join(f"    {line}\n" for line in body.splitlines()))
        fields = {"options": {}, "calibration": None, "on_progress": lambda *progress: None, **changes}
        return run_producer(file, Job(tmp_path / "source", tmp_path, workspace=tmp_path, **fields), tmp_path / "log.txt")

    return run


def is_running(process_id: int) -> bool:
    status = Path(f"/proc/{process_id}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(condition, timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_job_goes_in_and_versions_memory_and_progress_come_out(run, tmp_path):
    progress = []
    body = """
job.on_progress("layers", 1, 2)
ballast = b"x" * 50_000_000
assert job.calibration.samples == [[1, 2], [3]] and job.calibration.max_length == 2
(job.out / "result").write_text(f"{job.options['bits']} {job.source}")
print("not for the pipe")
return {"library": "1.0"}
"""
    calibration = CalibrationSet(((1, 2), (3,)), 2)
    outcome = run(body, options={"bits": 4}, calibration=calibration, on_progress=lambda *step: progress.append(step))
    assert outcome.versions == {"library": "1.0"}
    assert outcome.peak_memory_bytes > 50_000_000
    assert progress == [("layers", 1, 2)]
    assert (tmp_path / "result").read_text() == f"4 {tmp_path / 'source'}"
    assert "not for the pipe" in (tmp_path / "log.txt").read_text()


def test_its_memory_is_not_that_of_the_process_that_starts_it(run):
    ballast = bytearray(os.urandom(1) * 200_000_000)
    assert run("return {}").peak_memory_bytes < len(ballast)


def test_an_error_becomes_one_line_and_the_traceback_stays_in_the_log(run, tmp_path):
    with pytest.raises(ArchiverError) as error:
        run("raise ValueError('bad\\n shape')")
    assert str(error.value) == f"quantizing failed: ValueError: bad shape (its log: {tmp_path / 'log.txt'})"
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_a_users_mistake_stays_one(run):
    with pytest.raises(UsageError, match=r"^no such type$"):
        run("from archiver.errors import UsageError\nraise UsageError('no such type')")


@pytest.mark.parametrize(("body", "message"), [("os.kill(os.getpid(), 9)", "exit code -9; most likely"), ("os._exit(3)", "exit code 3 ")])
def test_one_that_is_killed_or_leaves_is_an_error(run, body, message):
    with pytest.raises(ArchiverError, match=message):
        run(f"import os\n{body}")


def test_nothing_named_after_a_library_beside_it_is_imported(run, tmp_path):
    (tmp_path / "json.py").write_text("raise ImportError")
    assert run("import json\nreturn {'json': json.dumps(1)}").versions == {"json": "1"}


def test_an_interrupt_ends_it(run, tmp_path):
    def interrupt(*step):
        raise KeyboardInterrupt

    body = "import os, time\n(job.out / 'id').write_text(str(os.getpid()))\njob.on_progress('layers', 0, 1)\ntime.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        run(body, on_progress=interrupt)
    assert not is_running(int((tmp_path / "id").read_text()))


PARENT = """
import sys
from pathlib import Path
from archiver.quantize.producer import Job
from archiver.quantize.producers.process import run_producer
here = Path(sys.argv[1])
run_producer(here / "producer.py", Job(here, here, {}, None, here, print), here / "log.txt")
"""


def test_it_dies_with_the_process_that_started_it(tmp_path):
    (tmp_path / "producer.py").write_text(
        "import os, time\ndef produce(job):\n    (job.out / 'id.part').write_text(str(os.getpid()))\n"
        "    (job.out / 'id.part').rename(job.out / 'id')\n    time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path])
    try:
        wait_until((tmp_path / "id").exists)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_until(lambda: not is_running(int((tmp_path / "id").read_text())))
