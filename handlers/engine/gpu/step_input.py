"""What a step needs on the device, as one row of int32 numbers, which one copy can send."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import Tensor

from handlers.engine.gpu.block_tables import Ints

Row = TypeVar("Row", Ints, Tensor)

_ALIGNMENT = 32
"""Numbers: Triton compiles a kernel once more for pointers and strides that are no multiples of 16, and a request would wait for it."""


@dataclass(frozen=True, slots=True)
class StepInput(Generic[Row]):
    """The parts of the row: arrays on the host, or tensors on the device.

    First come the tokens of running sequences, each of which attends alone, with a context and a block table of its own; then those of
    prompts, chunk by chunk. A token that is not known yet stands as ``-1 - r``: it is the r-th of those that were drawn after the step
    before. A place is where keys and values go, counted in tokens over all blocks; -1 is nowhere.
    """

    token_ids: Row  # (num_tokens,)
    positions: Row  # (num_tokens,)
    places: Row  # (num_tokens,)
    sampling: Row  # (num_logits,), tokens after which logits are wanted, in the order of the plan
    context_lens: Row  # (num_rows,), the token itself included; 0 is a row of padding
    block_table: Row  # (num_rows, width)
    query_starts: Row  # (num_prompts + 1,), counted from the first token of all prompts
    prompt_lens: Row  # (num_prompts,), contexts again
    prompt_block_table: Row  # (num_prompts, width)


@dataclass(frozen=True, slots=True)
class StepShape:
    """The sizes of a StepInput: ``num_rows`` tokens of running sequences, and block tables of ``width`` blocks."""

    num_rows: int
    num_prompts: int
    num_prompt_tokens: int
    num_logits: int
    width: int

    @classmethod
    def of_decodes(cls, num_rows: int, width: int) -> StepShape:
        """Return the shape of steps without prompts, in which logits may be wanted after every token."""
        return cls(num_rows, 0, 0, num_rows, width)

    @property
    def num_tokens(self) -> int:
        """Tokens of running sequences and prompts."""
        return self.num_rows + self.num_prompt_tokens

    @property
    def size(self) -> int:
        """Numbers in the row."""
        return sum(aligned(math.prod(part)) for part in self._parts())

    def split(self, row: Row) -> StepInput[Row]:
        """Return the parts of a row as views of it."""
        views, start = [], 0
        for part in self._parts():
            size = math.prod(part)
            views.append(row[start : start + size].reshape(part))
            start += aligned(size)
        return StepInput(*views)

    def _parts(self) -> Iterator[tuple[int, ...]]:
        yield from [(self.num_tokens,)] * 3
        yield (self.num_logits,)
        yield from ((self.num_rows,), (self.num_rows, self.width))
        yield from ((self.num_prompts + 1,), (self.num_prompts,), (self.num_prompts, self.width))


def aligned(size: int) -> int:
    """Round up to where a part may begin."""
    return -(-size // _ALIGNMENT) * _ALIGNMENT
