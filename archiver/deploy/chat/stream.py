"""The answer of a streamed chat completion, from bytes to pieces of text; nothing here knows where the bytes come from.

Sources: https://platform.openai.com/docs/api-reference/chat-streaming and
https://html.spec.whatwg.org/multipage/server-sent-events.html, of which servers of this API use lines that begin with ``data:`` only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from archiver.errors import ArchiverError
from archiver.printable import printable


class ChatError(ArchiverError):
    """The server refused a request, broke an answer off, or cannot be reached; ``code`` is the API's, if it gave one."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Chunk:
    """What one event adds to an answer. Numbers of tokens come once, with the last of them."""

    text: str = ""
    finish_reason: str | None = None
    num_prompt_tokens: int | None = None
    num_tokens: int | None = None


def read_chunks(received: Iterable[bytes]) -> Iterator[Chunk]:
    """Yield what the events in ``received`` hold, up to the one that ends the answer.

    Raises ChatError for an error event, for what is no event of this API, and when the end is missing.
    """
    for line in _lines(received):
        if not line.startswith(b"data:"):
            continue
        data = line.removeprefix(b"data:").strip()
        if data == b"[DONE]":
            return
        yield _chunk(data)
    raise ChatError("the server broke the answer off")


def error_from(body: bytes, status: int) -> ChatError:
    """Return the error that a refusal's body tells: an error object of the API, TorchServe's own, or anything else."""
    try:
        told = json.loads(body)
        error = told.get("error", told)
        return ChatError(_one_line(str(error["message"])), error.get("code") if "error" in told else None)
    except (ValueError, AttributeError, LookupError, TypeError):
        return ChatError(f"the server answers HTTP {status}: {_one_line(body.decode(errors='replace')) or 'nothing more'}")


def _lines(received: Iterable[bytes]) -> Iterator[bytes]:
    # Split here: httpx's `iter_lines` also splits at U+2028 and the like, which JSON may hold as they are.
    rest = b""
    for piece in received:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _chunk(data: bytes) -> Chunk:
    try:
        event = json.loads(data)
        if "error" in event:
            raise error_from(data, 200)
        usage = event.get("usage") or {}
        choice: dict[str, Any] = next(iter(event["choices"]), {})
        text = choice.get("delta", {}).get("content") or ""
        return Chunk(text, choice.get("finish_reason"), usage.get("prompt_tokens"), usage.get("completion_tokens"))
    except (ValueError, AttributeError, LookupError, TypeError):
        raise ChatError(f"what the server streams is no chat completion: {_one_line(data.decode(errors='replace'))}") from None


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())[:500]
