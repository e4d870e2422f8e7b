"""What the log of TorchServe 0.12 looks like when a load fails, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver.deploy.worker_log import ServerLog, unhandled_exception

TRACEBACK = """\
Backend worker process died.
Traceback (most recent call last):
  File "ts/model_service_worker.py", line 301, in <module>
    worker.run_server()
ValueError: no such layer: 7
"""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "torchserve.log"


def worker_says(path: Path, text: str, version: str = "1.0", output: str = "-stdout") -> None:
    with path.open("a") as file:
        for line in text.splitlines():
            file.write(f"2026-01-01T00:00:00,000 [INFO ] W-9000-my-bot.2_x_{version}{output} MODEL_LOG - {line}\n")


def frontend_says(path: Path, line: str, level: str = "WARN ") -> None:
    with path.open("a") as file:
        file.write(f"2026-01-01T00:00:00,000 [{level}] W-9000-my-bot.2_x_1.0 org.pytorch.serve.wlm.WorkerThread - {line}\n")


def test_nothing_is_wrong_before_the_log_exists_and_while_a_worker_starts(path, clock):
    log = ServerLog(path)
    log.update()
    worker_says(path, "Torch worker started.\nModel server started.")
    log.update()
    assert log.failure("my-bot.2_x") is None
    assert log.activity("my-bot.2_x") == ""


def test_tells_what_the_worker_does_now(path, clock):
    log = ServerLog(path)
    worker_says(path, "MARQUEE LOADING: verifying hashes\nMARQUEE LOADING: loading weights")
    log.update()
    assert log.activity("my-bot.2_x") == "loading weights"
    assert log.activity("another") == ""


def test_cause_is_the_exception_once_the_output_has_settled(path, clock):
    log = ServerLog(path)
    worker_says(path, TRACEBACK)
    log.update()
    assert log.failure("my-bot.2_x") is None  # the traceback may go on: "During handling of the above exception …"
    clock[0] += 0.5
    assert log.failure("my-bot.2_x") == "ValueError: no such layer: 7"
    assert log.failure("another") is None


def test_each_version_has_a_cause_of_its_own(path, clock):
    log = ServerLog(path)
    worker_says(path, TRACEBACK)
    worker_says(path, "MARQUEE LOADING: loading weights", version="2.0_rc")
    log.update()
    clock[0] += 0.5
    assert log.failure("my-bot.2_x", "1.0") == "ValueError: no such layer: 7"
    assert log.failure("my-bot.2_x", "2.0_rc") is None
    assert log.activity("my-bot.2_x", "2.0_rc") == "loading weights"
    worker_says(path, "Backend worker process died.", version="2.0_rc")
    log.update()
    clock[0] += 2.5
    assert "died without a message" in str(log.failure("my-bot.2_x", "2.0_rc"))


def test_reads_what_is_appended_and_never_half_a_line(path, clock):
    log = ServerLog(path)
    worker_says(path, TRACEBACK)
    whole = path.read_text()
    for end in range(0, len(whole), 7):
        path.write_text(whole[:end])
        log.update()
    path.write_text(whole)
    log.update()
    clock[0] += 0.5
    assert log.failure("my-bot.2_x") == "ValueError: no such layer: 7"


def test_a_silent_death_is_called_one_only_after_waiting_for_words(path, clock):
    log = ServerLog(path)
    frontend_says(path, "Load model failed: my-bot.2_x, error: Worker died.")
    log.update()
    clock[0] += 1
    assert log.failure("my-bot.2_x") is None
    clock[0] += 2
    assert "died without a message" in str(log.failure("my-bot.2_x"))


def test_a_timeout_names_the_setting(path, clock):
    log = ServerLog(path)
    frontend_says(path, "Backend worker error", "ERROR")
    with path.open("a") as file:
        file.write("org.pytorch.serve.wlm.WorkerInitializationException: Backend worker did not respond in given time\n\tat java.base\n")
    log.update()
    assert "startupTimeout" in str(log.failure("my-bot.2_x"))


def test_errors_of_the_frontend_itself_are_kept(path, clock):
    path.write_text("2026-01-01T00:00:00,000 [ERROR] main org.pytorch.serve.ModelServer - Invalid configuration\n")
    log = ServerLog(path)
    log.update()
    assert log.last_error == "Invalid configuration"


@pytest.mark.parametrize(
    ("raised", "cause"),
    [
        (["ValueError: first", "ValueError: second"], "ValueError: second"),
        (["ModuleNotFoundError: No module named 'jaxx'", "ModuleNotFoundError: No module named 'ts.torch_handler.handler'"],
         "ModuleNotFoundError: No module named 'jaxx'"),
        (["RuntimeError: shapes differ", "RuntimeError: 500 - Unknown exception"], "RuntimeError: shapes differ"),
        (["MemoryError", "RuntimeError: 507 - System out of memory"], "MemoryError"),
        (["handlers.errors.IntegrityError: altered model/model.safetensors"], "altered model/model.safetensors"),
    ],
)  # fmt: skip
def test_chain_of_exceptions(raised, cause):
    blocks = [["Traceback (most recent call last):", '  File "handler.py", line 1', "    raise", line, ""] for line in raised]
    assert unhandled_exception(line for block in blocks for line in block) == cause


def test_no_traceback_no_exception():
    assert unhandled_exception(["Torch worker started.", "ValueError: said, not raised"]) is None
    assert unhandled_exception(["Traceback (most recent call last):", "  File half"]) is None
