"""Chat completions of the OpenAI API (https://platform.openai.com/docs/api-reference/chat)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handlers.frontend import Incoming
from handlers.requests import OutputToken, Request, SamplingParams
from handlers.wire.codec import HOLE, EventTemplate, event, to_json
from handlers.wire.json_body import parse_json_object
from handlers.wire.logprobs import chat_logprobs
from handlers.wire.openai import DONE, authors_fields, check_model, usage
from handlers.wire.schema import ChatBody
from handlers.wire.validation import validate


class ChatCodec:
    """``v1/chat/completions``: messages in, one assistant message a choice out."""

    def __init__(self, model: str, defaults: SamplingParams) -> None:
        self._model = model
        self._defaults = defaults

    def decode(self, incoming: Incoming) -> list[Request]:
        """Read a chat body; system, developer, user, assistant and tool messages reach the template in their order."""
        body = validate(ChatBody, parse_json_object(incoming))
        check_model(body.model, self._model)
        return [body.request(self._model, self._defaults)]

    def answer(self, choices: Sequence[Request]) -> bytes:
        """Return a ``chat.completion`` object."""
        answers = [_answer(choice) for choice in choices]
        return to_json(_envelope(choices[0], "chat.completion", answers) | {"usage": usage(choices)} | authors_fields(choices))

    def stream(self, choice: Request) -> ChatStream:
        """Return the writer of a choice's chunks."""
        return ChatStream(choice)

    def end(self, choices: Sequence[Request]) -> bytes:
        """Return the usage chunk if it was asked for, and the end marker."""
        if not choices[0].include_usage:
            return DONE
        return event(_envelope(choices[0], _CHUNK, []) | {"usage": usage(choices)}) + DONE


class ChatStream:
    """Writes ``chat.completion.chunk`` events; the first of a choice carries the role too."""

    def __init__(self, choice: Request) -> None:
        self._choice = choice
        self._template = EventTemplate(self._chunk({"content": HOLE}))
        self._role = {"role": "assistant", "content": ""}

    def piece(self, text: str, tokens: Sequence[OutputToken]) -> bytes:
        """Return the chunk with new content."""
        if not self._role and not tokens:
            return self._template.fill(text)
        return event(self._chunk(self._take_role() | {"content": text}, chat_logprobs(tokens) if tokens else None))

    def end(self) -> bytes:
        """Return the chunk with the finish reason and the author's fields."""
        return event(self._chunk(self._take_role(), finish_reason=self._choice.finish_reason) | self._choice.fields)

    def _take_role(self) -> dict[str, str]:
        role, self._role = self._role, {}
        return role

    def _chunk(self, delta: dict[str, str], logprobs: Any = None, finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": self._choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return _envelope(self._choice, _CHUNK, [choice])


_CHUNK = "chat.completion.chunk"


def _answer(choice: Request) -> dict[str, Any]:
    message = {"role": "assistant", "content": choice.text}
    logprobs = None if choice.params.logprobs is None else chat_logprobs(choice.tokens)
    return {"index": choice.index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish_reason}


def _envelope(request: Request, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    head = {"id": f"chatcmpl-{request.id}", "object": kind, "created": int(request.created_s), "model": request.model}
    return head | {"choices": choices}
