"""Chat completions of the OpenAI API (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

from typing import Any

from handlers.frontend import Incoming
from handlers.requests import Request, SamplingParams
from handlers.wire.codec import event, to_json
from handlers.wire.json_body import parse_json_object
from handlers.wire.openai import DONE, check_model, usage
from handlers.wire.schema import ChatBody, validate


class ChatCodec:
    """``v1/chat/completions``: messages in, one assistant message out."""

    def __init__(self, model: str, defaults: SamplingParams) -> None:
        self._model = model
        self._defaults = defaults

    def decode(self, incoming: Incoming) -> Request:
        """Read a chat body; system, developer, user, assistant and tool messages reach the template in their order."""
        body = validate(ChatBody, parse_json_object(incoming))
        check_model(body.model, self._model)
        max_tokens = body.max_completion_tokens or body.max_tokens
        return Request(
            model=self._model,
            messages=[message.for_template() for message in body.messages],
            params=body.sampling_params(self._defaults, max_tokens),
            stream=bool(body.stream),
            include_usage=body.include_usage,
        )

    def answer(self, request: Request) -> bytes:
        """Return a ``chat.completion`` object."""
        message = {"role": "assistant", "content": request.text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": request.finish_reason}
        return to_json(_envelope(request, "chat.completion") | {"choices": [choice], "usage": usage(request)} | request.fields)

    def frame(self, request: Request, text: str) -> bytes:
        """Return a ``chat.completion.chunk`` with new content; the first one carries the role too."""
        return event(_chunk(request, {"content": text}, None))

    def last_frames(self, request: Request) -> bytes:
        """Return the chunk with the finish reason, the usage chunk if it was asked for, and the end marker."""
        frames = event(_chunk(request, {}, request.finish_reason) | request.fields)
        if request.include_usage:
            frames += event(_envelope(request, "chat.completion.chunk") | {"choices": [], "usage": usage(request)})
        return frames + DONE


def _envelope(request: Request, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{request.id}", "object": kind, "created": int(request.created_s), "model": request.model}


def _chunk(request: Request, delta: dict[str, str], finish_reason: str | None) -> dict[str, Any]:
    if request.num_sent_chars == 0:
        delta = {"role": "assistant", "content": ""} | delta
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _envelope(request, "chat.completion.chunk") | {"choices": [choice]}
