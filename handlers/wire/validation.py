"""Strict bodies: a parameter that is wrong, unknown or not supported is the client's mistake, and named."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from handlers.errors import InvalidRequest

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "reasoning_effort": (),
    "verbosity": (),
    "web_search_options": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
    # In messages: what the OpenAI client gives back, and what is no text.
    "refusal": (),
    "annotations": ([],),
    "tool_calls": ([],),
    "tool_call_id": (),
    "image_url": (),
    "input_audio": (),
    "file": (),
    # Of text-generation-inference.
    "decoder_input_details": (False,),
    "return_full_text": (False,),
    "watermark": (False,),
    "typical_p": (1,),
    "truncate": (),
    "grammar": (),
    "adapter_id": (),
}
"""Parameters that clients send and this server cannot act on, with the values that ask for nothing; null is always one of them."""

HINTS = frozenset({"user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"})
"""Parameters that ask for nothing whatever their value: labels, and hints to another vendor's caches."""


class Body(BaseModel):
    """A strict body: an unknown parameter, or a known one that is not supported, is an error and never ignored."""

    model_config = ConfigDict(strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unsupported(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            raise PydanticCustomError("object_type", "Input should be an object")
        for name, value in data.items():
            if name in cls.model_fields or name in HINTS:
                continue
            if name not in NEUTRAL:
                raise PydanticCustomError("unknown_parameter", "unknown parameter", {"name": name})
            if value is not None and not _is_one_of(value, NEUTRAL[name]):
                choices = " or ".join(json.dumps(choice) for choice in (None, *NEUTRAL[name]))
                message = "not supported by this server; leave it out or send {choices}"
                raise PydanticCustomError("unsupported_parameter", message, {"name": name, "choices": choices})
        return data


B = TypeVar("B", bound=Body)


def validate(schema: type[B], body: dict[str, Any]) -> B:
    """Return ``body`` as a ``schema``; raise InvalidRequest that names the first wrong parameter and says what it should be."""
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        raise _explain(error, _names()) from None


def _explain(error: ValidationError, names: frozenset[str]) -> InvalidRequest:
    """Name the problem that lies deepest: the members of a union complain one by one, and the right one got furthest."""
    problems = error.errors(include_url=False, include_input=False)
    depth = max(len(problem["loc"]) for problem in problems)
    deepest = [problem for problem in problems if len(problem["loc"]) == depth]
    first = deepest[0]
    # Union members stand in the location too; a client knows only its own keys and indices.
    path = [str(part) for part in first["loc"] if isinstance(part, int) or part in names]
    code = None
    if first["type"] in ("unknown_parameter", "unsupported_parameter"):
        path.append(first["ctx"]["name"])
        code = first["type"]
    complaint = " or ".join(dict.fromkeys(problem["msg"] for problem in deepest if problem["loc"][:1] == first["loc"][:1]))
    param = ".".join(path)[:200]
    return InvalidRequest(f"{param or 'body'}: {complaint}", param=param or None, code=code)


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(name for schema in _schemas(Body) for name in schema.model_fields)


def _schemas(schema: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield schema
    for special in schema.__subclasses__():
        yield from _schemas(special)


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether ``value`` is one of ``allowed``, where True is not 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in allowed)
