"""Log probabilities as clients read them: of chat completions, of completions, and of text-generation-inference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from handlers.requests import OutputToken, Token

_LOWEST = -9999.0
"""Stands for minus infinity, which JSON cannot say; OpenAI's API reference gives this value for the most unlikely tokens."""


def chat_logprobs(tokens: Iterable[OutputToken]) -> dict[str, Any]:
    """Return ``choices[].logprobs`` of chat completions."""
    content = [_chat_token(token.token, token.logprob) | {"top_logprobs": [_chat_token(*other) for other in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[OutputToken]) -> dict[str, Any]:
    """Return ``choices[].logprobs`` of completions; offsets count characters from the beginning of the choice's text."""
    return {
        "tokens": [token.token.text for token in tokens],
        "token_logprobs": [_finite(token.logprob) for token in tokens],
        "top_logprobs": [_by_text(token) for token in tokens],
        "text_offset": [token.offset for token in tokens],
    }


def tgi_token(token: Token, logprob: float) -> dict[str, Any]:
    """Return an element of text-generation-inference's ``details.tokens``."""
    return {"id": token.id, "text": token.text, "logprob": _finite(logprob), "special": token.is_special}


def _chat_token(token: Token, logprob: float) -> dict[str, Any]:
    return {"token": token.text, "logprob": _finite(logprob), "bytes": list(token.raw)}


def _by_text(token: OutputToken) -> dict[str, float]:
    """Map texts to log probabilities, the token itself among them as in OpenAI's answers; of tokens with one text the likeliest counts."""
    pairs = [*token.top, (token.token, token.logprob)]
    return {other.text: _finite(logprob) for other, logprob in sorted(pairs, key=lambda pair: pair[1])}


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST)
