"""The model list of the OpenAI API (https://platform.openai.com/docs/api-reference/models)."""

from __future__ import annotations

from collections.abc import Sequence

from handlers.frontend import Incoming
from handlers.requests import OutputToken, Request
from handlers.wire.codec import to_json

LIST = "v1/models"


class ModelsCodec:
    """``v1/models`` and ``v1/models/<id>``, answered without the model. ``created_s`` is when the worker loaded it (Unix time)."""

    def __init__(self, model: str, created_s: float) -> None:
        self._card = {"id": model, "object": "model", "created": int(created_s), "owned_by": "marquee"}

    def decode(self, incoming: Incoming) -> list[Request]:
        """Return a request that is finished before it begins; a body, if any, is of no interest."""
        return [Request(finish_reason="stop")]

    def answer(self, choices: Sequence[Request]) -> bytes:
        """Return the list, or the one model's card."""
        is_list = choices[0].route == LIST
        return to_json({"object": "list", "data": [self._card]} if is_list else self._card)

    def stream(self, choice: Request) -> NoStream:
        """Return a writer of nothing: a list is never streamed."""
        return NoStream()

    def end(self, choices: Sequence[Request]) -> bytes:
        """Return nothing."""
        return b""


class NoStream:
    """Writes nothing."""

    def piece(self, text: str, tokens: Sequence[OutputToken]) -> bytes:
        """Return nothing."""
        return b""

    def end(self) -> bytes:
        """Return nothing."""
        return b""
