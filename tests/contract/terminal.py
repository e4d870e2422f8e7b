"""A terminal with a command in it, as a user has it: what is typed, and what is on the screen."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
from types import TracebackType
from typing import Self

from tests.contract.clients import PATIENCE_S

_NO_TEXT = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""Colours and movements of the cursor."""

CTRL_C = "\x03"
CTRL_D = "\x04"


class Terminal:
    """Runs ``marquee`` with its arguments in a pseudo-terminal of 100 columns. ``output``: everything since it started, as it came."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self.output = ""
        self._seen = 0
        command = [sys.executable, "-m", "archiver", *arguments]
        child, self._descriptor = pty.fork()
        if child == 0:
            os.execve(sys.executable, command, {**os.environ, "COLUMNS": "100", "LINES": "30", "TERM": "xterm", **environment})
        self._pid = child

    def type(self, keys: str) -> None:
        """Press keys; Enter is a newline."""
        os.write(self._descriptor, keys.encode())

    def expect(self, text: str) -> None:
        """Wait until ``text`` comes, after what was expected last."""
        deadline_s = time.monotonic() + PATIENCE_S
        while text not in self.output[self._seen :]:
            assert self._read(deadline_s), f"no {text!r} in {self.output[self._seen :]!r}"
        self._seen = self.output.index(text, self._seen) + len(text)

    def expect_answer(self) -> None:
        """Wait until text comes, after what was expected last, that is no spinner."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not any(character.isalnum() for character in _NO_TEXT.sub("", self.output[self._seen :])):
            assert self._read(deadline_s), f"no text in {self.output[self._seen :]!r}"

    def exit_code(self) -> int:
        """Wait for the end of the command."""
        deadline_s = time.monotonic() + PATIENCE_S
        while self._read(deadline_s):
            pass
        assert time.monotonic() < deadline_s, f"still there after {self.output[self._seen :]!r}"
        _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def _read(self, deadline_s: float) -> bool:
        """Take in what has come; False at its end and after the deadline."""
        if not select.select([self._descriptor], [], [], max(deadline_s - time.monotonic(), 0))[0]:
            return False
        try:
            piece = os.read(self._descriptor, 65536)
        except OSError:  # so Linux says that the other side has closed
            return False
        self.output += piece.decode(errors="replace")
        return bool(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        if self._pid:
            os.kill(self._pid, 9)
            os.waitpid(self._pid, 0)
        os.close(self._descriptor)
