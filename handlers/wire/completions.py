"""Completions of the OpenAI API (https://platform.openai.com/docs/api-reference/completions)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handlers.frontend import Incoming
from handlers.requests import OutputToken, Request, SamplingParams
from handlers.wire.codec import HOLE, EventTemplate, event, to_json
from handlers.wire.json_body import parse_json_object
from handlers.wire.logprobs import completion_logprobs
from handlers.wire.openai import DONE, authors_fields, check_model, usage
from handlers.wire.schema import CompletionBody
from handlers.wire.validation import validate


class CompletionCodec:
    """``v1/completions``: prompts in (text or token ids), their continuations out, those of the first prompt first."""

    def __init__(self, model: str, defaults: SamplingParams) -> None:
        self._model = model
        self._defaults = defaults

    def decode(self, incoming: Incoming) -> list[Request]:
        """Read a completion body."""
        body = validate(CompletionBody, parse_json_object(incoming))
        check_model(body.model, self._model)
        return body.requests(self._model, self._defaults)

    def answer(self, choices: Sequence[Request]) -> bytes:
        """Return a ``text_completion`` object."""
        answers = [_choice(choice, choice.text, _logprobs(choice), choice.finish_reason) for choice in choices]
        return to_json(_envelope(choices[0], answers) | {"usage": usage(choices)} | authors_fields(choices))

    def stream(self, choice: Request) -> CompletionStream:
        """Return the writer of a choice's chunks."""
        return CompletionStream(choice)

    def end(self, choices: Sequence[Request]) -> bytes:
        """Return the usage chunk if it was asked for, and the end marker."""
        if not choices[0].include_usage:
            return DONE
        return event(_envelope(choices[0], []) | {"usage": usage(choices)}) + DONE


class CompletionStream:
    """Writes ``text_completion`` events."""

    def __init__(self, choice: Request) -> None:
        self._choice = choice
        self._template = EventTemplate(_envelope(choice, [_choice(choice, HOLE, None, None)]))

    def piece(self, text: str, tokens: Sequence[OutputToken]) -> bytes:
        """Return the chunk with new text."""
        if not tokens:
            return self._template.fill(text)
        return event(_envelope(self._choice, [_choice(self._choice, text, completion_logprobs(tokens), None)]))

    def end(self) -> bytes:
        """Return the chunk with the finish reason and the author's fields."""
        choice = self._choice
        return event(_envelope(choice, [_choice(choice, "", None, choice.finish_reason)]) | choice.fields)


def _logprobs(choice: Request) -> dict[str, Any] | None:
    return None if choice.params.logprobs is None else completion_logprobs(choice.tokens)


def _choice(request: Request, text: str, logprobs: Any, finish_reason: str | None) -> dict[str, Any]:
    return {"index": request.index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}


def _envelope(request: Request, choices: list[dict[str, Any]]) -> dict[str, Any]:
    head = {"id": f"cmpl-{request.id}", "object": "text_completion", "created": int(request.created_s), "model": request.model}
    return head | {"choices": choices}
