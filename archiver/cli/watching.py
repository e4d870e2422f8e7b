"""``marquee top`` and ``marquee chat``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_METRICS_URL = "The metrics, or the server; the management API, if it can be reached, is asked too."
_CHAT_URL = "The server, a model's prediction URL, or an OpenAI base URL."


def top_command(
    url: Annotated[str, typer.Argument(metavar="URL", help=_METRICS_URL)] = "http://127.0.0.1:8082",
    interval: Annotated[float, typer.Option(metavar="SECONDS", help="How often to look.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and leave.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a frame, for a machine.")] = False,
) -> None:
    """Watch a server: streams, queue, tokens, KV cache, times and errors of each model. Leave with q or Ctrl-C.

    Example: marquee top http://127.0.0.1:8082
    """
    from archiver.deploy.top.command import top

    top(url, interval, once=once, as_json=as_json)


def chat_command(
    url: Annotated[str, typer.Argument(metavar="URL", help=_CHAT_URL)] = "http://127.0.0.1:8080",
    model: Annotated[str | None, typer.Option(metavar="NAME[:VERSION]", help="Which model, where there are several.")] = None,
    key: Annotated[str | None, typer.Option(envvar="MARQUEE_API_KEY", help="The server's inference key.")] = None,
    key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", envvar="MARQUEE_KEY_FILE", help="The key_file.json; found for a server of yours here.")
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", metavar="TEXT", help="Ask this one thing and leave.")] = None,
    system: Annotated[str, typer.Option(metavar="TEXT", help="The system prompt.")] = "",
    settings: Annotated[
        list[str], typer.Option("--set", metavar="NAME=VALUE", help="A sampling parameter, as /set takes it. Repeatable.")
    ] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object an answer, for a machine.")] = False,
) -> None:
    """Talk to a model; Ctrl-C cancels an answer, and /help lists what else there is. Each line of a pipe is answered.

    Example: marquee chat --system "You are brief." --set temperature=0.2
    """
    from archiver.deploy.chat.command import ChatRequest, chat

    chat(ChatRequest(url, model, key, key_file, message, system, tuple(settings)), as_json=as_json)
