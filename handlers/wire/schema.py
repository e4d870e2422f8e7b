"""The bodies that clients send, as strict pydantic models: types, ranges, and parameters that are not supported yet.

Sources: https://platform.openai.com/docs/api-reference (chat, completions) and
https://huggingface.github.io/text-generation-inference (``/``). ``top_k``, ``stop_token_ids`` and ``ignore_eos`` are the extensions that other
servers of the OpenAI API share.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from handlers.errors import InvalidRequest
from handlers.requests import SamplingParams

Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
StopString = Annotated[str, Field(min_length=1, max_length=1000)]
StopStrings = StopString | Annotated[list[StopString], Field(max_length=16)]

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "logprobs": (False,),
    "echo": (False,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "top_logprobs": (0,),
    "decoder_input_details": (False,),
    "return_full_text": (False,),
    "watermark": (False,),
    "user": (),
    "metadata": (),
    "store": (False,),
    "service_tier": ("auto", "default"),
}
"""Parameters that clients send and this server does not act on, with the values that ask for nothing. Empty: any value asks for nothing."""


class Body(BaseModel):
    """A strict body: an unknown parameter, or a known one that is not supported, is an error and never ignored."""

    model_config = ConfigDict(strict=True, extra="allow")

    @model_validator(mode="after")
    def _refuse_unsupported(self) -> Body:
        for name, value in (self.model_extra or {}).items():
            neutral = NEUTRAL.get(name)
            if neutral is None:
                raise InvalidRequest(f"unknown parameter {name!r}", param=name, code="unknown_parameter")
            if value is not None and neutral and not _is_one_of(value, neutral):
                raise InvalidRequest(f"{name}={str(value)[:80]} is not supported by this server", param=name, code="unsupported_parameter")
        return self


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
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64)] | None = None
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
    content: str | list[TextPart]
    name: str | None = None

    @property
    def text(self) -> str:
        """Return the content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatBody(OpenAIBody):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    max_completion_tokens: Count | None = None


class CompletionBody(OpenAIBody):
    """``POST /v1/completions``; one prompt a request, as text or token ids."""

    prompt: str | Annotated[list[TokenId], Field(min_length=1)]


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
    except RecursionError:
        raise InvalidRequest("the body is nested too deeply") from None


def _explain(error: ValidationError, names: frozenset[str]) -> InvalidRequest:
    """Name the problem that lies deepest: the members of a union complain one by one, and the right one got furthest."""
    problems = error.errors(include_url=False, include_input=False)
    depth = max(len(problem["loc"]) for problem in problems)
    deepest = [problem for problem in problems if len(problem["loc"]) == depth]
    # Union members stand in the location too; a client knows only its own keys and indices.
    param = ".".join(str(part) for part in deepest[0]["loc"] if isinstance(part, int) or part in names)
    complaint = " or ".join(dict.fromkeys(problem["msg"] for problem in deepest if problem["loc"][0] == deepest[0]["loc"][0]))
    return InvalidRequest(f"{param or 'body'}: {complaint}", param=param or None)


def _names(schema: type[BaseModel]) -> frozenset[str]:
    known = (schema, StreamOptions, ChatMessage, TextPart, TGIParameters)
    return frozenset(name for model in known for name in model.model_fields)


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    """Whether ``value`` is one of ``allowed``, where True is not 1."""
    return any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in allowed)


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
