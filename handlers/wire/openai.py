"""What the routes of the OpenAI API share: usage, the model's name, the end of a stream."""

from __future__ import annotations

from handlers.errors import NotFound
from handlers.requests import Request

DONE = b"data: [DONE]\n\n"


def usage(request: Request) -> dict[str, int]:
    """Return the usage object, in tokens."""
    prompt, completion = len(request.prompt_token_ids), request.num_generated_tokens
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def check_model(asked: str | None, served: str) -> None:
    """Raise NotFound if the client asks for another model than the one that this URL serves."""
    if asked is not None and asked != served:
        raise NotFound(f"no model {asked!r} here; this URL serves {served!r}", param="model", code="model_not_found")
