"""How long one step of a model takes, by what is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from archiver.errors import UsageError
from archiver.plan.simulation.fitting import fit_non_negative
from archiver.plan.simulation.measurements import MeasuredStep


@dataclass(frozen=True)
class TimingModel:
    """The time of a step is a sum, in seconds: ``base_s``, which is reading the weights once, and something for each token.

    ``per_decode_s`` for a sequence that advances by one token, ``per_prompt_token_s`` for a token of a prompt, ``per_context_token_s`` for
    one whose keys and values are read. A request takes ``request_overhead_s`` besides, which keeps nothing else from running.
    """

    base_s: float
    per_decode_s: float = 0.0
    per_prompt_token_s: float = 0.0
    per_context_token_s: float = 0.0
    request_overhead_s: float = 0.0

    def step_s(self, num_decodes: float, num_prompt_tokens: float, num_context_tokens: float) -> float:
        """Return how long a step takes. It is linear: mean numbers give the mean time of several steps."""
        tokens_s = self.per_decode_s * num_decodes + self.per_prompt_token_s * num_prompt_tokens
        return self.base_s + tokens_s + self.per_context_token_s * num_context_tokens

    @classmethod
    def fit(cls, steps: Sequence[MeasuredStep], request_overhead_s: float = 0.0) -> TimingModel:
        """Return the smallest model that predicts ``steps`` about as well as any; raises UsageError for fewer than two.

        One decode, many decodes and a prompt of hundreds of tokens tell the first three coefficients apart, and many decodes of long
        sequences the fourth. What the steps cannot tell is left out, the context first: after one decode and one prompt, further decodes
        cost nothing, so that large batches look too fast. Without any prompt, its tokens are taken to cost what decodes do; and the other
        way round.
        """
        if len(steps) < 2:
            raise UsageError(f"a timing model needs two measured steps, better three (a decode, many, a prompt); got {len(steps)}")
        seconds = [step.seconds for step in steps]
        if any(step.num_decodes for step in steps) and any(step.num_prompt_tokens for step in steps):
            loads = [(1, step.num_prompt_tokens, step.num_decodes, step.num_context_tokens) for step in steps]
            base_s, prompt_token_s, decode_s, context_token_s = fit_non_negative(loads, seconds)
            return cls(base_s, decode_s, prompt_token_s, context_token_s, request_overhead_s)
        tokens = [(1, step.num_prompt_tokens + step.num_decodes, step.num_context_tokens) for step in steps]
        base_s, token_s, context_token_s = fit_non_negative(tokens, seconds)
        return cls(base_s, token_s, token_s, context_token_s, request_overhead_s)
