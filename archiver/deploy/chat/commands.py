"""What a line of the user's means: a message for the model, or one of the commands that begin with a slash."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from archiver.deploy.chat.parameters import PARAMETERS, Value, nearest, read_setting
from archiver.errors import UsageError


@dataclass(frozen=True)
class Say:
    """Ask the model."""

    text: str


@dataclass(frozen=True)
class Instruct:
    """Set the system prompt; an empty one removes it."""

    system: str


@dataclass(frozen=True)
class Set:
    """Set a sampling parameter; None gives it back to the server."""

    name: str
    value: Value | None


@dataclass(frozen=True)
class Save:
    """Write the conversation to a file."""

    path: Path


@dataclass(frozen=True)
class Load:
    """Go on with the conversation of a file."""

    path: Path


class Action(Enum):
    """The commands that take no argument, by their names."""

    SHOW = "show"
    RETRY = "retry"
    UNDO = "undo"
    RESET = "reset"
    HELP = "help"
    QUIT = "quit"


Command = Say | Instruct | Set | Save | Load | Action

USAGE = {
    "/system TEXT": "tell the model who it is; without TEXT no more",
    "/set NAME VALUE": f"{', '.join(PARAMETERS)}; without VALUE the server decides",
    "/show": "system prompt, settings and messages",
    "/retry": "ask the last question again",
    "/undo": "forget the last question and its answer",
    "/reset": "forget all messages",
    "/save FILE": "write the conversation to FILE",
    "/load FILE": "go on with the conversation in FILE",
    "/help": "this list",
    "/quit": "leave, as Ctrl-D does",
    '"""': "begins and ends a message of several lines, as a backslash at a line's end continues it",
    "//": "begins a message that begins with a slash",
}
"""What can be typed and what it does, in the order in which help shows it."""

_NAMES = [usage[1:].partition(" ")[0] for usage in USAGE if usage[1:2].isalpha()]


def parse(text: str) -> Command:
    """Return what the user wants; raises UsageError that names the command or argument that is wrong."""
    if not text.startswith("/"):
        return Say(text)
    if text.startswith("//"):
        return Say(text[1:])
    name, argument = _split(text[1:])
    match name:
        case "system":
            return Instruct(argument)
        case "set":
            return read_assignment(*_split(argument))
        case "save":
            return Save(_file(name, argument))
        case "load":
            return Load(_file(name, argument))
        case _ if name not in _NAMES:
            raise UsageError(f"no command /{name}: {nearest(name, _NAMES)}")
    if argument:
        raise UsageError(f"/{name} takes nothing after it")
    return Action(name)


def read_assignment(name: str, value: str) -> Set:
    """Return the setting of a sampling parameter; raises UsageError for an unknown name or an impossible value."""
    if name in PARAMETERS and not value:
        return Set(name, None)
    return Set(name, read_setting(name, value))


def _split(text: str) -> tuple[str, str]:
    name, argument, *_ = *text.split(maxsplit=1), "", ""
    return name, argument.strip()


def _file(command: str, argument: str) -> Path:
    if not argument:
        raise UsageError(f"/{command} FILE: say which file")
    return Path(argument).expanduser()
