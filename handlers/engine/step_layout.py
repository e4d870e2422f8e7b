"""How a planned step lies in memory: one flat row of tokens, and groups of sequences whose attention is one operation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from handlers.engine.scheduler import Chunk, StepPlan

_CALL_TOKENS = 400
"""What one more attention call costs, in padded key positions (12 µs against 30 ns, for 2 key heads of 64 in bfloat16 on 2 CPU cores)."""


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Sequences with equally many new tokens, padded to the longest context among them.

    ``tokens`` are their places in the flat row, sequence by sequence; ``positions`` ``(num_sequences, num_queries)`` where these stand;
    ``block_table`` ``(num_sequences, max_blocks)`` the blocks of their contexts, padded with blocks of others.
    """

    tokens: slice[int, int]
    num_keys: int
    positions: Tensor
    block_table: Tensor
    _masks: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    @property
    def num_sequences(self) -> int:
        """Sequences in the group."""
        return self.positions.shape[0]

    @property
    def num_queries(self) -> int:
        """New tokens of each sequence."""
        return self.positions.shape[1]

    def mask(self, window: int | None, num_repeats: int, dtype: torch.dtype) -> Tensor:
        """Return the additive mask ``(num_sequences, 1, num_repeats * num_queries, num_keys)``: causal, and at most ``window`` keys back.

        ``num_repeats`` query heads share a key head and stand one after the other. Made once a step, not once a layer.
        """
        if (window, num_repeats) not in self._masks:
            keys = torch.arange(self.num_keys, device=self.positions.device)
            distances = self.positions[:, :, None] - keys  # (num_sequences, num_queries, num_keys)
            hidden = (distances < 0) if window is None else (distances < 0) | (distances >= window)
            mask = torch.zeros(hidden.shape, dtype=dtype, device=keys.device).masked_fill_(hidden, -torch.inf)
            self._masks[window, num_repeats] = mask.repeat(1, num_repeats, 1)[:, None]
        return self._masks[window, num_repeats]


@dataclass(frozen=True, slots=True)
class StepLayout:
    """The tensors of one step over ``num_tokens`` tokens.

    ``token_ids`` and ``positions`` are ``(1, num_tokens)``; ``places`` ``(num_tokens,)`` is where each token's keys and values go, counted
    in tokens over all blocks. ``sampling`` ``(num_logits of all chunks,)`` has the places in the flat row of the tokens whose logits are
    wanted, in the order of the plan. ``new_blocks`` hold nothing yet.
    """

    token_ids: Tensor
    positions: Tensor
    places: Tensor
    sampling: Tensor
    new_blocks: Tensor
    groups: tuple[AttentionGroup, ...]


def lay_out(plan: StepPlan, block_tokens: int, device: torch.device, *, most_blocks: int) -> StepLayout:
    """Flatten a plan: running sequences first, like ones together, so that most attention is one operation; then prompts, one by one.

    The blocks of a group are copied together: of several sequences no more than ``most_blocks``, padding included, however many of them
    are the same ones. With those that there are, the copy of a layer is never larger than the layer of the cache.
    """

    def tensor(values: Iterable[int]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.long, device=device)

    decodes = sorted(plan.decodes.chunks, key=lambda chunk: (len(chunk.token_ids), chunk.end))
    prompts = [chunk for chunk in plan.chunks if chunk.is_prompt]
    flat = [*decodes, *prompts]
    positions = tensor(position for chunk in flat for position in range(chunk.start, chunk.end))
    return StepLayout(
        token_ids=tensor(token_id for chunk in flat for token_id in chunk.token_ids)[None],
        positions=positions[None],
        places=tensor(_places(flat, block_tokens)),
        sampling=tensor(_sampling_rows(flat, plan)),
        new_blocks=tensor(_new_blocks(flat, block_tokens)),
        groups=tuple(
            _lay_out_groups([*_alike(decodes, block_tokens, most_blocks), *([chunk] for chunk in prompts)], positions, block_tokens)
        ),
    )


def _places(chunks: Sequence[Chunk], block_tokens: int) -> Iterator[int]:
    for chunk in chunks:
        for position in range(chunk.start, chunk.end):
            yield chunk.block_ids[position // block_tokens] * block_tokens + position % block_tokens


def _new_blocks(chunks: Sequence[Chunk], block_tokens: int) -> Iterator[int]:
    for chunk in chunks:
        first = -(-chunk.start // block_tokens)
        yield from chunk.block_ids[first : -(-chunk.end // block_tokens)]


def _sampling_rows(flat: Sequence[Chunk], plan: StepPlan) -> Iterator[int]:
    ends: dict[str, int] = {}
    num_rows = 0
    for chunk in flat:
        num_rows += len(chunk.token_ids)
        ends[chunk.sequence_id] = num_rows
    for chunk in plan.chunks:
        yield from range(ends[chunk.sequence_id] - chunk.num_logits, ends[chunk.sequence_id])


def _alike(chunks: Sequence[Chunk], block_tokens: int, most_blocks: int) -> Iterator[list[Chunk]]:
    """Split chunks, sorted by size and context, where the size changes, or padding would cost more than another call, or is too much."""
    group: list[Chunk] = []
    for chunk in chunks:
        is_larger = bool(group) and len(chunk.token_ids) > len(group[-1].token_ids)
        padding = len(group) * (chunk.end - group[-1].end) if group else 0
        num_blocks = (len(group) + 1) * -(-chunk.end // block_tokens)
        if group and (is_larger or padding > _CALL_TOKENS or num_blocks > most_blocks):
            yield group
            group = []
        group.append(chunk)
    if group:
        yield group


def _lay_out_groups(groups: Sequence[Sequence[Chunk]], positions: Tensor, block_tokens: int) -> Iterator[AttentionGroup]:
    row = 0
    for chunks in groups:
        tokens = slice(row, row + len(chunks) * len(chunks[0].token_ids))
        num_keys = max(chunk.end for chunk in chunks)
        yield AttentionGroup(
            tokens=tokens,
            num_keys=num_keys,
            positions=positions[tokens].view(len(chunks), -1),
            block_table=torch.tensor(_block_table(chunks, num_keys, block_tokens), device=positions.device),
        )
        row = tokens.stop


def _block_table(chunks: Sequence[Chunk], num_keys: int, block_tokens: int) -> list[list[int]]:
    """Return each sequence's blocks, the shorter ones filled up with their first block, which is certainly clean."""
    width = -(-num_keys // block_tokens)
    rows = (list(chunk.block_ids[: min(width, -(-chunk.end // block_tokens))]) for chunk in chunks)
    return [row + row[:1] * (width - len(row)) for row in rows]
