"""What a user sees of a server that is ready: where it answers, and how to try it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from archiver.deploy.launch import TorchServe

_QUESTION = "Tell me a short story."


def announce(server: TorchServe, console: Console, seconds: float) -> None:
    """Print URLs, a request for ``curl``, the same in Python, and how to stop."""
    names = ", ".join(model.name for model in server.models)
    _line(console, Text(f"{names} ready after {seconds:.1f} s", style="bold green"))
    console.print()
    for label, value in _addresses(server):
        _line(console, Text(f"{label:<16}", style="bold"), value)
    for title, snippet in (("Try it", curl_snippet(server)), ("or in Python (pip install openai)", python_snippet(server))):
        console.print()
        _line(console, Text(f"{title}:", style="bold"))
        console.print()
        _line(console, snippet)
    console.print()
    _line(console, Text("Ctrl-C stops the server.", style="bold"))


def ready_record(server: TorchServe) -> dict[str, Any]:
    """Return the same for a machine, as one JSON object."""
    return {
        "ready": True,
        "models": [
            {"name": model.name, "version": model.version, "base_url": server.openai_base_url(model.name)}
            | {"prediction_url": server.prediction_url(model.name)}
            for model in server.models
        ],
        "inference_url": server.inference_url,
        "management_url": server.management_url,
        "metrics_url": server.metrics_url,
        "key_file": str(server.key_file) if server.key_file else None,
        "logs": str(server.logs),
        "frontend_pid": server.frontend_pid,
    }


def curl_snippet(server: TorchServe) -> str:
    """Return a streamed chat request to paste into a shell. A key is read where it lies: what is printed may end up in a log."""
    body = {"model": server.models[0].name, "stream": True, "messages": [{"role": "user", "content": _QUESTION}]}
    key = f"KEY=$(python3 -c 'import json; print({_read_key(server.key_file)})')\n" if server.key_file else ""
    lines = [
        f"curl -N {server.openai_base_url()}/chat/completions",
        *(['-H "Authorization: Bearer $KEY"'] if key else []),
        "-H 'Content-Type: application/json'",
        f"-d '{json.dumps(body)}'",
    ]
    return key + " \\\n  ".join(lines)


def python_snippet(server: TorchServe) -> str:
    """Return the same request with the ``openai`` client."""
    imports, key = ("import json\n\n", _read_key(server.key_file)) if server.key_file else ("", '"unused"')
    return f'''\
{imports}from openai import OpenAI

client = OpenAI(base_url="{server.openai_base_url()}", api_key={key})
messages = [{{"role": "user", "content": "{_QUESTION}"}}]
for chunk in client.chat.completions.create(model="{server.models[0].name}", messages=messages, stream=True):
    print(chunk.choices[0].delta.content or "", end="", flush=True)'''


def _read_key(key_file: Path) -> str:
    """Return the Python expression that reads the inference key."""
    return f'json.load(open("{key_file}"))["inference"]["key"]'


def _addresses(server: TorchServe) -> list[tuple[str, str]]:
    several = len(server.models) > 1
    urls = [(f"{model.name}:" if several else "OpenAI base URL", server.openai_base_url(model.name)) for model in server.models]
    keys = [("Keys", str(server.key_file))] if server.key_file else []
    return [*urls, ("Metrics", server.metrics_url), *keys, ("Logs", str(server.logs))]


def _line(console: Console, *parts: str | Text) -> None:
    # Nothing is wrapped, coloured by guess or read as markup: every line can be copied.
    console.print(*parts, soft_wrap=True, highlight=False, markup=False)
