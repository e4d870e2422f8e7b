"""The two ways to hold a chat: with a person at a terminal, and line by line over pipes."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.text import Text

from archiver.deploy.chat.commands import parse
from archiver.deploy.chat.reader import history_file, kept_history, read_message
from archiver.deploy.chat.session import Session
from archiver.deploy.chat.stream import ChatError
from archiver.errors import ArchiverError
from archiver.printable import printable


def converse(session: Session, console: Console, greeting: str) -> None:
    """Read and answer until the user leaves. Ctrl-C ends an answer, or clears the line; nothing that goes wrong ends the chat."""
    console.print(Text(printable(greeting), style="bold"), soft_wrap=True)
    console.print("/help lists commands; Ctrl-C cancels an answer, Ctrl-D leaves", style="dim")
    with kept_history(history_file()):
        while not session.is_over:
            try:
                text = read_message(input, *_prompts(console))
            except KeyboardInterrupt:
                console.line()
            except EOFError:
                console.line()
                return
            else:
                _try(session, text, console)


def _try(session: Session, text: str, console: Console) -> None:
    """Carry out one message; whatever comes of it, the chat goes on."""
    try:
        if text.strip():
            session.carry_out(parse(text))
    except ArchiverError as error:
        console.print(Text(printable(_advised(error)), style="red"))
    except KeyboardInterrupt:
        pass  # the session has said so


def _advised(error: ArchiverError) -> str:
    is_too_long = isinstance(error, ChatError) and error.code == "context_length_exceeded"
    return f"{error}; /reset begins anew" if is_too_long else str(error)


def answer_lines(session: Session) -> None:
    """Answer what standard input holds, to its end. Raises UsageError or ChatError for the first thing that goes wrong."""
    while not session.is_over:
        try:
            text = read_message(_read_line)
        except EOFError:
            return
        if text.strip():
            session.carry_out(parse(text))


def _read_line(_prompt: str) -> str:
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line.removesuffix("\n")


def _prompts(console: Console) -> tuple[str, str]:
    """Return the prompts of a message's first and further lines; colours stand between the marks by which readline measures."""
    if console.no_color:
        return "> ", ". "
    return "\001\033[1;36m\002>\001\033[0m\002 ", "\001\033[2;36m\002.\001\033[0m\002 "
