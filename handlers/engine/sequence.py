"""One sequence in the engine: its tokens, how far the model has read them, and when it ends."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from handlers.requests import FinishReason, SamplingParams

UNKNOWN = -1
"""The id of a token that has been sampled, but has not arrived from the device."""


@dataclass(eq=False, slots=True)
class Sequence:
    """A prompt that grows. Belongs to the engine's thread once added.

    The model has read ``token_ids[:num_computed]``: their keys and values lie in ``block_ids``; and it has been asked to read as far as
    ``num_launched``. The rest is pending: some of the prompt, all of a preempted sequence, or the one token that was sampled last, which is
    UNKNOWN as long as it has a ``late_row``. ``max_len`` bounds prompt and generated tokens together; a token in ``end_token_ids`` ends it,
    too. Times are of a monotonic clock, in seconds.
    """

    id: str
    token_ids: list[int]
    params: SamplingParams
    seed: int
    max_len: int
    end_token_ids: frozenset[int]
    priority: int = 0
    arrived_s: float = 0.0
    deadline_s: float = math.inf
    """When it expires, unless it has started."""

    num_prompt_tokens: int = field(init=False)
    finish_reason: FinishReason | None = field(init=False, default=None)

    # The scheduler's.
    rank: tuple[int, int] = field(init=False, default=(0, 0))
    """Priority and number of arrival: the lowest goes first, the highest gives way first."""
    started_s: float | None = field(init=False, default=None)
    num_cached_tokens: int = field(init=False, default=0)
    """Tokens of the prompt that were computed already when it started."""

    # The engine's.
    late_row: int | None = field(init=False, default=None)
    """Its place among the samples of the step that runs."""

    # The prefix cache's.
    num_launched: int = field(init=False, default=0)
    num_computed: int = field(init=False, default=0)
    block_ids: list[int] = field(init=False, default_factory=list)
    num_shared_tokens: int = field(init=False, default=0)
    """Those in blocks that it found computed when it was given these."""
    block_hashes: list[bytes] = field(init=False, default_factory=list)
    """Of its full blocks, as far as they have been needed."""
    awaited_hash: bytes | None = field(init=False, default=None)
    """Of the block that it found missing last."""

    def __post_init__(self) -> None:
        self.num_prompt_tokens = len(self.token_ids)

    @property
    def num_pending(self) -> int:
        """Tokens that the model has not been asked to read yet; at least one in a live sequence."""
        return len(self.token_ids) - self.num_launched

    @property
    def num_generated(self) -> int:
        """Tokens sampled so far."""
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def is_full(self) -> bool:
        """Whether it has its last token, though that may not have arrived."""
        return len(self.token_ids) >= self.max_len

    def rewind(self) -> None:
        """Have nothing computed, in no blocks."""
        self.num_launched = self.num_computed = 0
        self.block_ids = []  # a new list: a step in progress may still read the old one

    def append(self, token_id: int) -> None:
        """Take the token sampled for the end of the sequence; see ``settle``."""
        self.settle(len(self.token_ids), token_id)

    def expect(self, row: int) -> None:
        """Go on with a token that a step has yet to sample, as the row ``row`` of its samples."""
        self.late_row = row
        self.token_ids.append(UNKNOWN)

    def settle(self, position: int, token_id: int) -> None:
        """Take the token sampled for ``position``, expected or not, and finish where it or the length says so."""
        self.token_ids[position : position + 1] = [token_id]
        if token_id in self.end_token_ids:
            self.finish_reason = "stop"
            del self.token_ids[position + 1 :]  # the step after it did not know that it was the last
        elif position + 1 >= self.max_len:
            self.finish_reason = "length"
        if self.token_ids[-1] != UNKNOWN:
            self.late_row = None
