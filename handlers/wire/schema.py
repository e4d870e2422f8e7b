"""The bodies that clients send, as strict pydantic models: types, ranges, and parameters that are not supported yet.

Sources: https://platform.openai.com/docs/api-reference (chat, completions) and
https://huggingface.github.io/text-generation-inference (``/``). ``top_k``, ``stop_token_ids`` and ``ignore_eos`` are the extensions that
other servers of the OpenAI API share.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from handlers.errors import InvalidRequest
from handlers.requests import Message, SamplingParams

Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
StopString = Annotated[str, Field(min_length=1, max_length=1000)]
StopStrings = StopString | Annotated[list[StopString], Field(max_length=16, fail_fast=True)]
# Lists fail fast and have an end: a body may hold millions of items, and while it is checked everyone else waits.

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
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
    "top_n_tokens": (0,),
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


class StreamOptions(Body):
    """Options of a streamed answer."""

    include_usage: bool = False


class Sampling(Body):
    """The sampling parameters that every route shares, under the OpenAI names; None means the checkpoint's default."""

    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    seed: Seed | None = None
    stop: StopStrings | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64, fail_fast=True)] | None = None
    ignore_eos: bool | None = None

    def sampling_params(self, defaults: SamplingParams, max_tokens: int | None) -> SamplingParams:
        """Return the checkpoint's ``defaults`` with everything that the client gave put over them."""
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=_given(self.temperature, defaults.temperature),
            top_p=_given(self.top_p, defaults.top_p),
            top_k=max(_given(self.top_k, defaults.top_k), 0),
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
        )


class OpenAIBody(Sampling):
    """What chat completions and completions share."""

    model: str | None = None
    max_tokens: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream and self.stream_options and self.stream_options.include_usage)


class TextPart(Body):
    """A piece of a message's content; only text is supported."""

    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One message; ``content`` may come as a list of text parts, which are joined."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(max_length=1000, fail_fast=True)]
    name: str | None = None

    def for_template(self) -> Message:
        """Return the message as chat templates know it, its content as one string."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        name = {} if self.name is None else {"name": self.name}
        return {"role": self.role, "content": content} | name


class ChatBody(OpenAIBody):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=10_000, fail_fast=True)]
    max_completion_tokens: Count | None = None


class CompletionBody(OpenAIBody):
    """``POST /v1/completions``; one prompt a request, as text or token ids."""

    prompt: str | Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


class TGIParameters(Sampling):
    """``parameters`` of a text-generation-inference request."""

    max_new_tokens: Count | None = None
    do_sample: bool | None = None
    details: bool | None = None


class TGIBody(Body):
    """``POST`` to the bare prediction URL."""

    inputs: str
    parameters: TGIParameters = Field(default_factory=TGIParameters)
    stream: bool | None = None


B = TypeVar("B", bound=Body)
T = TypeVar("T")


def validate(schema: type[B], body: dict[str, Any]) -> B:
    """Return ``body`` as a ``schema``; raise InvalidRequest that names the first wrong parameter and says what it should be."""
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        raise _explain(error, _names(schema)) from None


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


def _names(schema: type[BaseModel]) -> frozenset[str]:
    known = (schema, StreamOptions, ChatMessage, TextPart, TGIParameters)
    return frozenset(name for model in known for name in model.model_fields)


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether ``value`` is one of ``allowed``, where True is not 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in allowed)


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
