"""A request as handlers see it: what the client asked, how to sample, and what came of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from handlers.errors import Failed, InvalidRequest, RequestError
from handlers.time_ledger import TimeLedger

FinishReason = Literal["stop", "length", "cancelled", "expired", "error"]
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How one sequence is sampled; neutral values mean "off".

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0 keep the whole vocabulary. ``repetition_penalty`` divides the
    logits of tokens of prompt and output (Keskar et al. 2019); ``presence_penalty`` and ``frequency_penalty`` are subtracted for tokens of
    the output (OpenAI). ``logit_bias`` are pairs of token id and what is added to its logit. ``seed`` None draws a fresh one; a given seed
    makes the output reproducible whatever else is in the batch. ``stop`` strings are matched in the decoded text, ``stop_token_ids`` before
    it; no token ends a sequence before it has ``min_tokens`` generated ones. ``max_tokens`` None means the handler's
    ``generation.max_new_tokens``; it is a number once the request is rendered. ``logprobs`` None reports none, 0 that of each token, n > 0
    also those of the n most likely ones, all of the model's own distribution.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether the most likely token is always taken."""
        return self.temperature == 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log probability of a generated token, and the most likely tokens in its place with theirs, the likeliest first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Token:
    """A token of the vocabulary as clients see it: ``text`` stands for it alone, and ``raw`` are the bytes that it writes.

    A token that holds only some bytes of a character has no text of its own; ``text`` then spells the bytes (``\\xf0\\x9f``).
    """

    id: int
    text: str
    raw: bytes
    is_special: bool = False


@dataclass(frozen=True, slots=True)
class OutputToken:
    """A token of a request's text, its log probability, the likeliest tokens in its place, and at which character its text begins."""

    token: Token
    logprob: float
    offset: int
    top: tuple[tuple[Token, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A new piece of a request's text."""

    text: str


@dataclass(eq=False, slots=True)
class Request:
    """One choice of one client's request, on its way through the stages.

    Until it is rendered a request stands for all ``n`` choices of one prompt; ``choices`` then makes one of each. They share ``id``, and
    ``index`` counts the choices of all prompts of a client's request. The client gives exactly one of ``messages``, ``prompt`` and
    ``prompt_token_ids``; the last always stands after ``render``. ``route`` is the path below the prediction URL, ``content_type`` the
    media type of the answer unless it is streamed. Of those that wait for the engine the lowest ``priority`` is the first, and none waits
    longer than ``max_queue_s``.
    Not thread-safe: a request belongs to the worker's main thread.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    index: int = 0
    n: int = 1
    route: str = ""
    content_type: str = "application/json"
    model: str = ""
    messages: list[Message] | None = None
    prompt: str | None = None
    prompt_token_ids: list[int] = field(default_factory=list)
    params: SamplingParams = field(default_factory=SamplingParams)
    priority: int = 0
    max_queue_s: float | None = None
    stream: bool = False
    include_usage: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    created_s: float = field(default_factory=time.time)

    extra: dict[str, Any] = field(default_factory=dict)
    """The author's: anything that ``postprocess`` or ``emit`` should find again."""
    fields: dict[str, Any] = field(default_factory=dict)
    """The author's: extra top-level fields of the JSON answer (and of a stream's last event)."""

    text: str = ""
    tokens: list[OutputToken] = field(default_factory=list)
    """The tokens of the text, if their log probabilities were asked for."""
    num_generated_tokens: int = 0
    num_cached_tokens: int = 0
    num_wasted_tokens: int = 0
    sink: Callable[[str], None] | None = None
    finish_reason: FinishReason | None = None
    error: RequestError | None = None
    times: TimeLedger = field(default_factory=TimeLedger)

    @property
    def sequence_id(self) -> str:
        """What the engine knows this choice by."""
        return f"{self.id}#{self.index}" if self.index else self.id

    @property
    def is_first_choice(self) -> bool:
        """Whether this is the first choice of its prompt, on which the prompt is accounted."""
        return self.index % self.n == 0

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be generated for this request."""
        return self.finish_reason is not None or self.error is not None

    def fail(self, status: int, message: str) -> None:
        """End this request with an HTTP ``status`` (400–599) and a message for the client; its neighbours go on."""
        if not 400 <= status <= 599:
            raise ValueError(f"a request fails with a status from 400 to 599, got {status}")
        kind = InvalidRequest if status < 500 else Failed
        self.error = kind(message, status=status)

    def answer(self, text: str) -> None:
        """Answer this request without the model, from ``preprocess``: with something cached, or canned."""
        self.text = text
        self.finish_reason = "stop"

    def choices(self) -> list[Request]:
        """Return the ``n`` requests, one a choice, that a rendered one stands for; a given seed is followed by the ones after it.

        The request itself is the first; the others share its prompt and its ``headers``, and have ``extra``, ``fields`` and ``times`` of
        their own.
        """
        return [self, *(self._choice(number) for number in range(1, self.n))]

    def _choice(self, number: int) -> Request:
        params = self.params if self.params.seed is None else replace(self.params, seed=_wrapped(self.params.seed + number))
        return replace(
            self,
            index=self.index + number,
            params=params,
            extra=dict(self.extra),
            fields=dict(self.fields),
            tokens=[],
            times=self.times.copy(),
        )

    def limit_tokens(self, default: int, max_model_len: int) -> None:
        """Settle ``params.max_tokens`` of a rendered request: ``default``, or what the window leaves.

        Raises InvalidRequest if the prompt and what was asked for do not fit together.
        """
        num_prompt_tokens = len(self.prompt_token_ids)
        room = max_model_len - num_prompt_tokens
        asked, least = self.params.max_tokens, max(self.params.min_tokens, 1)
        wanted = asked or least
        if room < wanted:
            raise InvalidRequest(
                f"the prompt has {num_prompt_tokens} tokens and max_tokens is {wanted}: together more than the model's {max_model_len}",
                param="max_tokens",
                code="context_length_exceeded",
            )
        self.params = replace(self.params, max_tokens=asked or min(max(default, least), room))

    def map_text(self, function: Callable[[str], str]) -> None:
        """Apply ``function`` to every piece of text that the client sent: each message's text, or the prompt. Token ids are not text."""
        if self.messages is not None:
            self.messages = [_map_message(message, function) for message in self.messages]
        if self.prompt is not None:
            self.prompt = function(self.prompt)


def _wrapped(seed: int) -> int:
    """Keep a seed within 64 bits, signed."""
    return (seed + 2**63) % 2**64 - 2**63


def _map_message(message: Message, function: Callable[[str], str]) -> Message:
    content = message.get("content")
    return {**message, "content": function(content)} if isinstance(content, str) else message
