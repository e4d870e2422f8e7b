"""The bodies that clients send, as strict pydantic models: names, types and ranges.

Sources: https://platform.openai.com/docs/api-reference (chat, completions) and
https://huggingface.github.io/text-generation-inference (``/``). ``top_k``, ``min_p``, ``repetition_penalty``, ``min_tokens``,
``stop_token_ids``, ``ignore_eos`` and ``priority`` are the extensions that other servers of the OpenAI API share; ``max_queue_s`` is ours.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from handlers.errors import InvalidRequest
from handlers.requests import Message, Request, SamplingParams
from handlers.wire.validation import Body

MAX_CHOICES = 64
"""Prompts times ``n`` of one request."""

Temperature = Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)]
Probability = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
Divisor = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=2**31 - 1)]
Alternatives = Annotated[int, Field(ge=0, le=20)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
TokenKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
StopString = Annotated[str, Field(min_length=1, max_length=1000)]
StopStrings = StopString | Annotated[list[StopString], Field(max_length=16, fail_fast=True)]
Tokens = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
Several = Field(min_length=1, max_length=MAX_CHOICES, fail_fast=True)
# Lists fail fast and have an end: a body may hold millions of items, and while it is checked everyone else waits.


class StreamOptions(Body):
    """Options of a streamed answer."""

    include_usage: bool = False


class Sampling(Body):
    """The parameters that every route shares, under the OpenAI names; None means the default, of sampling the checkpoint's."""

    temperature: Temperature | None = None
    top_p: Probability | None = None
    top_k: Annotated[int, Field(ge=-1, lt=2**31)] | None = None
    min_p: Fraction | None = None
    repetition_penalty: Divisor | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenKey, Bias], Field(max_length=1024)] | None = None
    min_tokens: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    seed: Seed | None = None
    stop: StopStrings | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=64, fail_fast=True)] | None = None
    ignore_eos: bool | None = None
    priority: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    max_queue_s: Seconds | None = None

    def sampling_params(self, defaults: SamplingParams, max_tokens: int | None, logprobs: int | None) -> SamplingParams:
        """Return the checkpoint's ``defaults`` with everything that the client gave put over them."""
        min_tokens = _given(self.min_tokens, 0)
        if max_tokens is not None and min_tokens > max_tokens:
            raise InvalidRequest(f"min_tokens: {min_tokens} is more than the {max_tokens} that max_tokens allows", param="min_tokens")
        return SamplingParams(
            max_tokens=max_tokens,
            min_tokens=min_tokens,
            temperature=_given(self.temperature, defaults.temperature),
            top_p=_given(self.top_p, defaults.top_p),
            top_k=max(_given(self.top_k, defaults.top_k), 0),
            min_p=_given(self.min_p, defaults.min_p),
            repetition_penalty=_given(self.repetition_penalty, defaults.repetition_penalty),
            presence_penalty=_given(self.presence_penalty, 0.0),
            frequency_penalty=_given(self.frequency_penalty, 0.0),
            logit_bias=tuple((int(token_id), bias) for token_id, bias in (self.logit_bias or {}).items()),
            seed=self.seed,
            stop=(self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            logprobs=logprobs,
        )


class OpenAIBody(Sampling):
    """What chat completions and completions share."""

    model: str | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def _request(self, model: str, params: SamplingParams) -> Request:
        """Return the request but for its prompt."""
        return Request(
            model=model,
            n=self.n or 1,
            params=params,
            priority=self.priority or 0,
            max_queue_s=self.max_queue_s,
            stream=bool(self.stream),
            include_usage=bool(self.stream and self.stream_options and self.stream_options.include_usage),
        )


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
    logprobs: bool | None = None
    top_logprobs: Alternatives | None = None

    def request(self, model: str, defaults: SamplingParams) -> Request:
        """Return what is asked for; raise InvalidRequest for parameters that contradict each other."""
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs: set 'logprobs' to true, too", param="top_logprobs")
        logprobs = (self.top_logprobs or 0) if self.logprobs else None
        request = self._request(model, self.sampling_params(defaults, self.max_completion_tokens or self.max_tokens, logprobs))
        request.messages = [message.for_template() for message in self.messages]
        return request


class CompletionBody(OpenAIBody):
    """``POST /v1/completions``; prompts as text or token ids, one or several."""

    prompt: str | Tokens | Annotated[list[str], Several] | Annotated[list[Tokens], Several]
    logprobs: Alternatives | None = None
    best_of: Count | None = None

    def requests(self, model: str, defaults: SamplingParams) -> list[Request]:
        """Return one request for each prompt; raise InvalidRequest for parameters that contradict each other."""
        prompts = self._prompts()
        n = self.n or 1
        if self.best_of not in (None, n):
            raise InvalidRequest(f"best_of: must equal 'n' ({n}), got {self.best_of}", param="best_of", code="unsupported_parameter")
        if len(prompts) * n > MAX_CHOICES:
            raise InvalidRequest(f"prompt: {len(prompts)} prompts times n = {n} are more than {MAX_CHOICES} choices", param="prompt")
        params = self.sampling_params(defaults, self.max_tokens, self.logprobs)
        return [self._prompted(self._request(model, params), prompt) for prompt in prompts]

    def _prompts(self) -> list[Any]:
        is_one = isinstance(self.prompt, str) or isinstance(self.prompt[0], int)
        return [self.prompt] if is_one else list(self.prompt)

    @staticmethod
    def _prompted(request: Request, prompt: str | list[int]) -> Request:
        if isinstance(prompt, str):
            request.prompt = prompt
        else:
            request.prompt_token_ids = prompt
        return request


class TGIParameters(Sampling):
    """``parameters`` of a text-generation-inference request."""

    max_new_tokens: Count | None = None
    do_sample: bool | None = None
    details: bool | None = None
    top_n_tokens: Alternatives | None = None


class TGIBody(Body):
    """``POST`` to the bare prediction URL."""

    inputs: str
    parameters: TGIParameters = Field(default_factory=TGIParameters)
    stream: bool | None = None


T = TypeVar("T")


def _given(value: T | None, default: T) -> T:
    return default if value is None else value
