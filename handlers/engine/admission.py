"""What an engine can take on: checked before a request reaches it, in whatever process that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from handlers.errors import InvalidRequest
from handlers.requests import SamplingParams


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """The limits of one engine, as plain data.

    ``max_model_len`` bounds prompt and generated tokens of a sequence together, and that many always fit into the KV cache. At most
    ``max_running`` sequences run and ``max_waiting`` wait; ``max_queued_tokens`` bounds the prompts of those that wait (None: it does not).
    """

    max_model_len: int
    vocab_size: int
    max_running: int
    max_waiting: int
    max_queued_tokens: int | None = None

    def check(self, prompt_token_ids: Sequence[int], params: SamplingParams) -> None:
        """Raise InvalidRequest if the sequence could never run; ValueError if ``params.max_tokens`` was not settled."""
        if params.max_tokens is None:
            raise ValueError("SamplingParams.max_tokens must be a number when a sequence reaches the engine, got None")
        if params.max_tokens < 1:
            raise InvalidRequest(f"max_tokens must be at least 1, got {params.max_tokens}", param="max_tokens")
        if not prompt_token_ids:
            raise InvalidRequest("the prompt is empty")
        if len(prompt_token_ids) >= self.max_model_len:
            raise InvalidRequest(
                f"the prompt has {len(prompt_token_ids)} tokens; with at least one generated token, "
                f"prompts of up to {self.max_model_len - 1} fit",
                code="context_length_exceeded",
            )
        lowest, highest = min(prompt_token_ids), max(prompt_token_ids)
        if not 0 <= lowest <= highest < self.vocab_size:
            raise InvalidRequest(f"prompt token ids must lie in 0..{self.vocab_size - 1}, got {lowest}..{highest}")
