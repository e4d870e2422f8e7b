"""The model list of the OpenAI API (https://platform.openai.com/docs/api-reference/models)."""

from __future__ import annotations

from handlers.frontend import Incoming
from handlers.requests import Request
from handlers.wire.codec import to_json

LIST = "v1/models"


class ModelsCodec:
    """``v1/models`` and ``v1/models/<id>``, answered without the model. ``created_s`` is when the worker loaded it (Unix time)."""

    def __init__(self, model: str, created_s: float) -> None:
        self._card = {"id": model, "object": "model", "created": int(created_s), "owned_by": "marquee"}

    def decode(self, incoming: Incoming) -> Request:
        """Return a request that is finished before it begins; a body, if any, is of no interest."""
        return Request(finish_reason="stop")

    def answer(self, request: Request) -> bytes:
        """Return the list, or the one model's card."""
        is_list = request.route == LIST
        return to_json({"object": "list", "data": [self._card]} if is_list else self._card)

    def frame(self, request: Request, text: str) -> bytes:
        """Return nothing: a list is never streamed."""
        return b""

    def last_frames(self, request: Request) -> bytes:
        """Return nothing: a list is never streamed."""
        return b""
