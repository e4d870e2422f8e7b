"""Completions of the OpenAI API (https://platform.openai.com/docs/api-reference/completions)."""

from __future__ import annotations

from typing import Any

from handlers.frontend import Incoming
from handlers.requests import Request, SamplingParams
from handlers.wire.codec import event, to_json
from handlers.wire.json_body import parse_json_object
from handlers.wire.openai import DONE, check_model, usage
from handlers.wire.schema import CompletionBody, validate


class CompletionCodec:
    """``v1/completions``: a prompt in (text or token ids), its continuation out."""

    def __init__(self, model: str, defaults: SamplingParams) -> None:
        self._model = model
        self._defaults = defaults

    def decode(self, incoming: Incoming) -> Request:
        """Read a completion body."""
        body = validate(CompletionBody, parse_json_object(incoming))
        check_model(body.model, self._model)
        return Request(
            model=self._model,
            prompt=body.prompt if isinstance(body.prompt, str) else None,
            prompt_token_ids=[] if isinstance(body.prompt, str) else body.prompt,
            params=body.sampling_params(self._defaults, body.max_tokens),
            stream=bool(body.stream),
            include_usage=body.include_usage,
        )

    def answer(self, request: Request) -> bytes:
        """Return a ``text_completion`` object."""
        return to_json(_completion(request, request.text, request.finish_reason) | {"usage": usage(request)} | request.fields)

    def frame(self, request: Request, text: str) -> bytes:
        """Return a chunk with new text."""
        return event(_completion(request, text, None))

    def last_frames(self, request: Request) -> bytes:
        """Return the chunk with the finish reason, the usage chunk if it was asked for, and the end marker."""
        frames = event(_completion(request, "", request.finish_reason) | request.fields)
        if request.include_usage:
            frames += event(_completion(request, "", None) | {"choices": [], "usage": usage(request)})
        return frames + DONE


def _completion(request: Request, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {
        "id": f"cmpl-{request.id}",
        "object": "text_completion",
        "created": int(request.created_s),
        "model": request.model,
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}],
    }
