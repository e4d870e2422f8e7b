"""What the routes of the OpenAI API share: usage, the model's name, the author's fields, the end of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from handlers.errors import NotFound
from handlers.requests import Request

DONE = b"data: [DONE]\n\n"


def usage(choices: Sequence[Request]) -> dict[str, Any]:
    """Return the usage object, in tokens: each prompt once, however many choices it has, and what was generated for all of them."""
    prompt = sum(len(choice.prompt_token_ids) for choice in choices if choice.is_first_choice)
    cached = sum(choice.num_cached_tokens for choice in choices if choice.is_first_choice)
    completion = sum(choice.num_generated_tokens for choice in choices)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def authors_fields(choices: Sequence[Request]) -> dict[str, Any]:
    """Return the extra fields that the author gave to the choices; of one name the last choice's counts."""
    return {name: value for choice in choices for name, value in choice.fields.items()}


def check_model(asked: str | None, served: str) -> None:
    """Raise NotFound if the client asks for another model than the one that this URL serves."""
    if asked is not None and asked != served:
        raise NotFound(f"no model {asked!r} here; this URL serves {served!r}", param="model", code="model_not_found")
