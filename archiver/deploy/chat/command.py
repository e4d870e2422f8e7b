"""``marquee chat``: from the command line to a session, at a terminal or over pipes."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from archiver.deploy.addresses import INFERENCE_TO_MANAGEMENT, neighbour
from archiver.deploy.chat.authorization import GivenKey, StreamKeyAuth
from archiver.deploy.chat.client import ChatClient
from archiver.deploy.chat.commands import Say, read_assignment
from archiver.deploy.chat.conversation import Conversation
from archiver.deploy.chat.dialogue import answer_lines, converse
from archiver.deploy.chat.endpoint import openai_base_url
from archiver.deploy.chat.session import Session
from archiver.deploy.chat.stream import ChatError
from archiver.deploy.chat.views import JsonView, PipeView, TerminalView
from archiver.deploy.management import ManagementClient, ManagementError, Unreachable
from archiver.deploy.running_server import RunningServer
from archiver.errors import UsageError


@dataclass(frozen=True)
class ChatRequest:
    """What the user asked for. ``model``: NAME or NAME:VERSION; ``message``: the only one; ``settings``: NAME=VALUE each."""

    url: str
    model: str | None = None
    key: str | None = None
    key_file: Path | None = None
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
    with closing(_connect(request)) as client:
        model = _choose(client.models(), request.model)
        is_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
        console = Console(highlight=False)
        view = JsonView(console, model) if as_json else TerminalView(console) if is_terminal else PipeView(console)
        session = Session(client, model, view, conversation)
        if request.message is not None:
            session.carry_out(Say(request.message))
        elif is_terminal:
            converse(session, console, f"{model} at {client.base_url}")
        else:
            answer_lines(session)


def _connect(request: ChatRequest) -> ChatClient:
    """Return the client of the model's URL. The key of a server of this user on this machine is found, and renewed when it expires."""
    given = GivenKey(request.key) if request.key else None
    with RunningServer.at(neighbour(request.url, INFERENCE_TO_MANAGEMENT), key_file=request.key_file) as server:
        base_url = openai_base_url(request.url, request.model, lambda: _default_versions(server.management))
        found = StreamKeyAuth(server.keys, "inference", server.management.url) if server.keys else None
        return ChatClient(base_url, given or found)


def _default_versions(management: ManagementClient) -> dict[str, str]:
    try:
        return {model.name: management.describe(model.name).version for model in management.list()}
    except Unreachable:
        hint = "is the server running? If only its management API is out of reach, add --model NAME:VERSION"
        raise ChatError(f"cannot ask {management.url} which models there are: {hint}") from None
    except ManagementError as error:
        raise ChatError(f"{error}; or add --model NAME:VERSION") from None


def _choose(models: Sequence[str], wanted: str | None) -> str:
    """Return the model to name in requests: the wanted one, or the only one."""
    name = (wanted or "").partition(":")[0]
    if not name and len(models) != 1:
        raise UsageError(f"say which with --model: there are {', '.join(models)}")
    return name or models[0]
