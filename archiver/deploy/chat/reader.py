"""What the user types: lines that make messages, and the lines of earlier chats."""

from __future__ import annotations

import contextlib
import os
import readline
from collections.abc import Callable, Iterator
from pathlib import Path

ReadLine = Callable[[str], str]
"""From a prompt to the line that was typed; raises EOFError at the end of input."""

_FENCE = '"""'
_MOST_LINES = 1000


def read_message(read_line: ReadLine, prompt: str = "", more: str = "") -> str:
    r"""Read one message: a line, lines that end with a backslash and the one after them, or all that stands between two ``\"\"\"``.

    ``more`` is the prompt of further lines. Raises EOFError when there is no line left; a message that is cut short by that is returned.
    """
    line = read_line(prompt)
    lines = _fenced(line, read_line, more) if line.startswith(_FENCE) else _continued(line, read_line, more)
    return "\n".join(lines)


def _continued(line: str, read_line: ReadLine, more: str) -> Iterator[str]:
    with contextlib.suppress(EOFError):
        while line.endswith("\\"):
            yield line[:-1]
            line = read_line(more)
        yield line


def _fenced(line: str, read_line: ReadLine, more: str) -> Iterator[str]:
    line = line.removeprefix(_FENCE)
    with contextlib.suppress(EOFError):
        while not line.rstrip().endswith(_FENCE):
            yield line
            line = read_line(more)
        yield line.rstrip().removesuffix(_FENCE)


def history_file() -> Path:
    """Return where lines of earlier chats are kept: below ``XDG_STATE_HOME``, by default ``~/.local/state``."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "marquee" / "chat_history"


@contextlib.contextmanager
def kept_history(path: Path) -> Iterator[None]:
    """Offer the lines of earlier chats with the arrow keys, and keep those of this one, for this user's eyes only."""
    with contextlib.suppress(OSError):  # no history is no reason not to chat
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        readline.read_history_file(path)
    readline.set_history_length(_MOST_LINES)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            readline.write_history_file(path)
            path.chmod(0o600)
