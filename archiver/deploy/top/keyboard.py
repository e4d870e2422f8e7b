"""Single keys, without Enter and without an echo."""

from __future__ import annotations

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def single_keys() -> Iterator[Callable[[float], str]]:
    """Yield a function that waits for a key, so many seconds at most, and returns it; "" if none was pressed.

    Where standard input is no terminal it only waits.
    """
    if not sys.stdin.isatty():
        yield _sleep
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)  # signals go on working, unlike in raw mode
    try:
        yield lambda timeout_s: _wait(keyboard, timeout_s)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _wait(keyboard: int, timeout_s: float) -> str:
    ready, _, _ = select.select([keyboard], [], [], timeout_s)
    return os.read(keyboard, 1).decode(errors="replace") if ready else ""


def _sleep(timeout_s: float) -> str:
    time.sleep(timeout_s)
    return ""
