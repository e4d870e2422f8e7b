"""One sequence in the engine: its tokens, how far the model has read them, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass, field

from handlers.requests import FinishReason, SamplingParams


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt that grows. Belongs to the engine's thread once added.

    The model has read ``token_ids[:num_computed]``: their keys and values lie in ``slot``. The rest is pending: some of the prompt, or the
    one token that was sampled last. ``max_len`` bounds prompt and generated tokens together; a token in ``end_token_ids`` ends it, too.
    """

    id: str
    token_ids: list[int]
    params: SamplingParams
    seed: int
    max_len: int
    end_token_ids: frozenset[int]
    num_computed: int = 0
    slot: int | None = None
    finish_reason: FinishReason | None = None
    num_prompt_tokens: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.token_ids)

    @property
    def num_pending(self) -> int:
        """Tokens that the model has not read yet; at least one in a live sequence."""
        return len(self.token_ids) - self.num_computed

    @property
    def num_generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    def append(self, token_id: int) -> None:
        """Take a sampled token, and finish where it or the length says so."""
        self.token_ids.append(token_id)
        if token_id in self.end_token_ids:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.max_len:
            self.finish_reason = "length"
