"""A worker that is one too many asks its frontend for no more of them."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from handlers.frontend_process import FrontendProcess


class FakeFrontend(ThreadingHTTPServer):
    """A management API that tells of workers, and remembers what it was asked."""

    workers = (("READY", 1), ("UNLOADING", os.getpid()))

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[tuple[str, str | None]] = []


class _Answers(BaseHTTPRequestHandler):
    server: FakeFrontend

    def do_GET(self) -> None:
        self.server.asked.append((f"{self.command} {self.path}", self.headers["Authorization"]))
        body = json.dumps([{"workers": [{"status": status, "pid": pid} for status, pid in self.server.workers]}]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def frontend() -> Iterator[FakeFrontend]:
    with FakeFrontend() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def proc(tmp_path: Path, frontend: FakeFrontend) -> Path:
    """A process 7 that was started with that frontend's configuration."""
    directory = tmp_path / "cwd"
    directory.mkdir()
    (directory / "config.properties").write_text(f"# x\nmanagement_address = http://0.0.0.0:{frontend.server_port}\n")
    (directory / "key_file.json").write_text(json.dumps({"management": {"key": "secret"}}))
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cwd").symlink_to(directory)
    (tmp_path / "7" / "cmdline").write_bytes(b"java\0-f\0config.properties\0-s\0store\0")
    return tmp_path


def test_the_others_go_where_the_first_is_ready(frontend, proc):
    assert FrontendProcess.of(7, proc).keep_one_worker("tiny", "1.0")
    key = "Bearer secret"
    assert frontend.asked == [("GET /models/tiny/1.0", key), ("PUT /models/tiny/1.0?min_worker=1&max_worker=1", key)]


@pytest.mark.parametrize(
    "workers",
    [
        (("UNLOADING", os.getpid()), ("READY", 2)),
        (("READY", os.getpid()),),
        (("READY", 1), ("READY", 2)),  # another server's
    ],
)
def test_the_one_that_serves_is_never_ended(frontend, proc, workers):
    frontend.workers = workers
    assert not FrontendProcess.of(7, proc).keep_one_worker("tiny", "1.0")
    assert len(frontend.asked) == 1


def test_no_key_goes_where_none_is_wanted(frontend, proc):
    config = proc / "cwd" / "config.properties"
    config.write_text(config.read_text() + "disable_token_authorization=true\n")
    assert FrontendProcess.of(7, proc) == FrontendProcess(f"http://127.0.0.1:{frontend.server_port}")


def test_the_stock_address_is_the_default_and_others_are_told(proc):
    (proc / "cwd" / "config.properties").write_text("\n")
    assert FrontendProcess.of(7, proc).management_url == "http://127.0.0.1:8081"
    (proc / "cwd" / "config.properties").write_text("management_address=unix:/tmp/socket\n")
    (proc / "7" / "cmdline").write_bytes(b"java\0")  # it reads the file of this name, too
    with pytest.raises(ValueError, match="unix:/tmp/socket"):
        FrontendProcess.of(7, proc)
    with pytest.raises(OSError):
        FrontendProcess.of(8, proc)
