"""Bodies that no client should send, for every route: each is the client's mistake and nobody else's trouble."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MULTIPART = {"Content-Type": "multipart/form-data; boundary=edge"}

CHAT, COMPLETIONS, BARE = "v1/chat/completions", "v1/completions", ""
ROUTES = (CHAT, COMPLETIONS, BARE)


@dataclass(frozen=True)
class Malformed:
    """One request and the status that it deserves; ``name`` says what is wrong with it."""

    name: str
    route: str
    content: bytes
    status: int = 400
    headers: dict[str, str] = field(default_factory=lambda: JSON)

    def __str__(self) -> str:
        return f"{self.route or 'bare'}: {self.name}"


def body(route: str, text: Any = "hello", **params: Any) -> dict[str, Any]:
    """Return a route's body that is right but for what is given; lengths are ``max_tokens`` everywhere."""
    if route == CHAT:
        return {"messages": [{"role": "user", "content": text}], **params}
    if route == COMPLETIONS:
        return {"prompt": text, **params}
    renamed = {{"max_tokens": "max_new_tokens"}.get(name, name): value for name, value in params.items()}
    return {"inputs": text, "parameters": renamed}


NOT_JSON = {
    "nothing": b"",
    "cut off": b'{"prompt": ',
    "two values": b'{"prompt": "x"} {"prompt": "x"}',
    "single quotes": b"{'prompt': 'x'}",
    "a comment": b'{"prompt": "x" /* why not */}',
    "not UTF-8": b'{"prompt": "\xff\xfe"}',
    "UTF-16": '{"prompt": "x"}'.encode("utf-16"),
    "a deep array": b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"prompt": ' + b'{"a": ' * 50_000 + b"1" + b"}" * 50_000 + b"}",
    "a deep array without an end": b"[" * 1_000_000,
    "NUL bytes": b"\0" * 1000,
    "an array": b"[]",
    "a string": b'"hello"',
    "a number": b"1e999",
    "null": b"null",
}
WRONG_TEXT = {
    "no text": None,
    "text that is a number": 5,
    "text that is an object": {"a": "b"},
    "a lone surrogate": "\ud800",
    "a NUL": "a\0b",
    "far more text than the window": "all work and no play " * 5_000,
    "megabytes of text": "x" * 6_000_000,
}
WRONG_PARAMETERS: dict[str, dict[str, Any]] = {
    "max_tokens 0": {"max_tokens": 0},
    "max_tokens below 0": {"max_tokens": -1},
    "max_tokens of a billion": {"max_tokens": 10**9},
    "max_tokens beyond every integer": {"max_tokens": 10**400},
    "max_tokens of 5000 digits": {"max_tokens": int("9" * 4000)},
    "max_tokens a fraction": {"max_tokens": 1.5},
    "max_tokens a string": {"max_tokens": "many"},
    "max_tokens true": {"max_tokens": True},
    "max_tokens a list": {"max_tokens": [1]},
    "temperature below 0": {"temperature": -0.1},
    "temperature huge": {"temperature": 1e308},
    "temperature NaN": {"temperature": float("nan")},
    "temperature infinite": {"temperature": float("inf")},
    "temperature a string": {"temperature": "hot"},
    "top_p 0": {"top_p": 0},
    "top_p above 1": {"top_p": 1.01},
    "top_k below -1": {"top_k": -2},
    "top_k huge": {"top_k": 2**64},
    "seed too long": {"seed": 2**70},
    "an empty stop string": {"stop": [""]},
    "a hundred stop strings": {"stop": ["x"] * 100},
    "a stop string of 2 MB": {"stop": "x" * 2_000_000},
    "stop a number": {"stop": 7},
    "a stop string with half a surrogate pair": {"stop": "\udfff"},
    "stop token ids below 0": {"stop_token_ids": [-1]},
    "stop token ids as text": {"stop_token_ids": ["the"]},
    "min_p above 1": {"min_p": 1.5},
    "repetition_penalty 0": {"repetition_penalty": 0},
    "presence_penalty above 2": {"presence_penalty": 2.5},
    "frequency_penalty NaN": {"frequency_penalty": float("nan")},
    "logit_bias a list": {"logit_bias": [1, 2]},
    "logit_bias above 100": {"logit_bias": {"5": 101}},
    "logit_bias of a word": {"logit_bias": {"the": 1}},
    "logit_bias of a token that there is not": {"logit_bias": {"99999999": 1}},
    "logit_bias of a hundred thousand tokens": {"logit_bias": {str(token_id): 1 for token_id in range(100_000)}},
    "min_tokens below 0": {"min_tokens": -1},
    "min_tokens above max_tokens": {"min_tokens": 9, "max_tokens": 8},
    "min_tokens beyond the window": {"min_tokens": 2**31 - 1},
    "max_queue_s 0": {"max_queue_s": 0},
    "max_queue_s infinite": {"max_queue_s": float("inf")},
    "priority a fraction": {"priority": 0.5},
    "n 0": {"n": 0},
    "n of a thousand": {"n": 1000},
    "best_of another number than n": {"best_of": 3},
    "logprobs of a hundred": {"logprobs": 100},
    "top_logprobs of a hundred": {"logprobs": True, "top_logprobs": 100},
    "an unknown parameter": {"no_such_parameter": 1},
}


def _malformed_requests() -> Iterator[Malformed]:
    for route in ROUTES:
        for name, content in NOT_JSON.items():
            yield Malformed(name, route, content)
        for name, text in WRONG_TEXT.items():
            yield Malformed(name, route, json.dumps(body(route, text)).encode())
        for name, params in WRONG_PARAMETERS.items():
            yield Malformed(name, route, json.dumps(body(route, **params)).encode())
        yield from _wrongly_wrapped(route)
    for name, messages in WRONG_MESSAGES.items():
        yield Malformed(name, CHAT, json.dumps({"messages": messages}).encode())
    for name, prompt in {"an empty prompt": "", "no token ids": [], "token ids out of range": [10**6]}.items():
        yield Malformed(name, COMPLETIONS, json.dumps({"prompt": prompt}).encode())
    several = {"a thousand prompts": ["a"] * 1000, "a prompt among many that is empty": ["a", ""], "text and token ids": ["a", [1]]}
    for name, prompts in several.items():
        yield Malformed(name, COMPLETIONS, json.dumps({"prompt": prompts}).encode())
    for name, stream in {"stream a string": "yes", "stream a number": 1}.items():
        yield from (Malformed(name, route, json.dumps(body(route) | {"stream": stream}).encode()) for route in ROUTES)
    for route in ("v1", "v1/embeddings", "v1/chat", "v1/models/another", "v2/completions", "v1//completions"):
        yield Malformed("no such route", route, json.dumps(body(COMPLETIONS)).encode(), status=404)
    yield Malformed("another model", COMPLETIONS, json.dumps(body(COMPLETIONS, model="another")).encode(), status=404)


WRONG_MESSAGES: dict[str, Any] = {
    "no messages": [],
    "messages a string": "hello",
    "a message that is a string": ["hello"],
    "a role of nobody": [{"role": "nobody", "content": "hello"}],
    "no content": [{"role": "user"}],
    "an image": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1"}}]}],
    "what the template refuses": [{"role": "user", "content": "refuse me"}],
    "a thousand messages that end in nonsense": [{"role": "user", "content": "a"}] * 1_000 + [7],
}


def _wrongly_wrapped(route: str) -> Iterator[Malformed]:
    right = json.dumps(body(route)).encode()
    yield Malformed("a form", route, b"prompt=hello&inputs=hello", headers=FORM)
    yield Malformed("JSON that calls itself a form", route, right, headers=FORM)
    yield Malformed("multipart without a part", route, right, headers=MULTIPART)
    yield Malformed("JSON that is compressed and does not say so", route, gzip.compress(right))
    yield Malformed("what calls itself compressed and is not", route, b"not gzip at all", headers=JSON | {"Content-Encoding": "gzip"})


MALFORMED_REQUESTS = tuple(_malformed_requests())
"""The whole corpus."""
