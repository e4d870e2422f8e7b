"""Orders to a running worker: a line in, a line out, and a clear word about what is none."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.control_socket import ControlSocket, send_command
from handlers.errors import ConfigError, MarqueeError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "c.sock"


@pytest.fixture
def control(path: Path) -> Iterator[ControlSocket]:
    def fail() -> None:
        raise ConfigError("not like this")

    def crash() -> None:
        raise RuntimeError("oh")

    commands = {"add": lambda a, b=1: a + b, "fail": fail, "crash": crash, "wait": release.wait}
    control = ControlSocket(path, commands)
    yield control
    control.close()


release = threading.Event()


def test_a_command_has_arguments_and_a_result(control: ControlSocket, path: Path) -> None:
    assert send_command(path, "add", a=1, b=2) == 3
    assert send_command(path, "add", a=[1], b=["x"]) == [1, "x"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not a command"),
        (b"[1]", "not a command"),
        (b'"add"', "not a command"),
        (b"\xff", "not a command"),
        (b'{"command": "subtract"}', r"not a command \('subtract'\); commands: add\(a, b\), fail\(\)"),
        (b'{"command": ["add"]}', "not a command"),
        (b'{"command": "add"}', "missing a required argument: 'a'"),
        (b'{"command": "add", "a": 1, "c": 2}', "unexpected keyword argument 'c'"),
        (b'{"command": "fail"}', "^not like this$"),
        (b'{"command": "crash"}', "^RuntimeError: oh$"),
        (b"[" * 100_000, "not a command"),
    ],
)
def test_what_is_no_command_is_explained_and_the_next_one_is_heard(control: ControlSocket, path: Path, line: bytes, message: str) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        reader = connection.makefile("rb")
        connection.sendall(line + b"\n")
        assert re.search(message, json.loads(reader.readline())["error"])
        connection.sendall(b'{"command": "add", "a": 1}\n')
        assert json.loads(reader.readline()) == {"result": 2}


def test_an_error_is_raised_at_the_other_end(control: ControlSocket, path: Path) -> None:
    with pytest.raises(MarqueeError, match="not like this"):
        send_command(path, "fail")


def test_a_command_that_takes_long_keeps_nobody_waiting(control: ControlSocket, path: Path) -> None:
    waiter = threading.Thread(target=send_command, args=(path, "wait"))
    waiter.start()
    assert send_command(path, "add", a=1) == 2
    release.set()
    waiter.join(10)


def test_without_a_worker_it_says_so(path: Path) -> None:
    with pytest.raises(MarqueeError, match="no worker answers"):
        send_command(path, "add", a=1)


def test_what_a_dead_worker_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(MarqueeError, match="no worker answers"):
        send_command(path, "add", a=1)
    ControlSocket(path, {}).close()
    assert not path.exists()


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    directory = tmp_path / ("x" * 120)
    directory.mkdir()
    control = ControlSocket(directory / "c.sock", {"ask": lambda: "heard"})
    assert send_command(directory / "c.sock", "ask") == "heard"
    control.close()
    assert not list(directory.iterdir())


def test_a_socket_that_cannot_be_opened_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set TMPDIR"):
        ControlSocket(tmp_path / "missing" / "c.sock", {})
