"""``marquee chat``: from the command line to a session, at a terminal or over pipes."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from archiver.deploy.chat.client import ChatClient
from archiver.deploy.chat.commands import Say, parse, read_assignment
from archiver.deploy.chat.conversation import Conversation
from archiver.deploy.chat.endpoint import SERVER_URL, openai_base_url
from archiver.deploy.chat.printable import printable
from archiver.deploy.chat.reader import history_file, kept_history, read_message
from archiver.deploy.chat.served import served_versions
from archiver.deploy.chat.session import Session
from archiver.deploy.chat.stream import ChatError
from archiver.deploy.chat.views import JsonView, PipeView, TerminalView
from archiver.errors import ArchiverError, UsageError


@dataclass(frozen=True)
class ChatRequest:
    """What the user asked for. ``model``: NAME or NAME:VERSION; ``message``: the only one; ``settings``: NAME=VALUE each."""

    url: str = SERVER_URL
    model: str | None = None
    key: str | None = None
    message: str | None = None
    system: str = ""
    settings: Sequence[str] = ()


def chat(request: ChatRequest, *, as_json: bool = False) -> None:
    """Chat until the user leaves or standard input ends.

    Over pipes the first thing that goes wrong ends it. Raises UsageError, or ChatError for a server that does not answer.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    conversation = Conversation(request.system)
    for setting in request.settings:
        name, _, value = setting.partition("=")
        assignment = read_assignment(name, value)
        conversation = conversation.set(assignment.name, assignment.value)
    with closing(ChatClient(openai_base_url(request.url, request.model, served_versions), request.key)) as client:
        model = _choose(client.models(), request.model)
        is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        console = Console(highlight=False)
        view = JsonView(console, model) if as_json else TerminalView(console) if is_terminal else PipeView(console)
        session = Session(client, model, view, conversation)
        if request.message is not None:
            session.carry_out(Say(request.message))
        elif is_terminal:
            _converse(session, console, f"{model} at {client.base_url}")
        else:
            _answer_lines(session)


def _choose(models: Sequence[str], wanted: str | None) -> str:
    """Return the model to name in requests: the wanted one, or the only one."""
    name = (wanted or "").partition(":")[0]
    if not name and len(models) != 1:
        raise UsageError(f"say which with --model: there are {', '.join(models)}")
    return name or models[0]


def _converse(session: Session, console: Console, greeting: str) -> None:
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


def _answer_lines(session: Session) -> None:
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
