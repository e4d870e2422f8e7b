"""How a planned step lies in memory: one flat row of tokens, and groups of sequences whose attention is one operation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from handlers.engine.scheduler import Chunk, StepPlan

_CALL_TOKENS = 400
"""What one more attention call costs, in padded key positions (12 µs against 30 ns, for 2 key heads of 64 in bfloat16 on 2 CPU cores)."""


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Sequences in neighbouring slots with equally many new tokens, padded to the longest context among them.

    ``tokens`` are their places in the flat row, sequence by sequence; ``positions`` ``(num_sequences, num_queries)`` where these stand.
    """

    tokens: slice[int, int]
    slots: slice[int, int]
    num_keys: int
    positions: Tensor
    _masks: dict[tuple[int | None, int], Tensor] = field(default_factory=dict)

    @property
    def num_sequences(self) -> int:
        """Sequences in the group."""
        return self.slots.stop - self.slots.start

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

    ``token_ids`` and ``positions`` are ``(1, num_tokens)``, ``slots`` is ``(num_tokens,)``. ``sampling`` ``(num_sampling_chunks,)`` has the
    places of the tokens that are sampled from, in the order of the plan. ``new_slots`` begin a sequence in this step.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    sampling: Tensor
    groups: tuple[AttentionGroup, ...]
    new_slots: tuple[int, ...]


def lay_out(plan: StepPlan, device: torch.device) -> StepLayout:
    """Flatten a plan: single tokens first, by slot, so that most attention is one operation; then the longer chunks, each for itself."""
    single = sorted((chunk for chunk in plan.chunks if len(chunk.token_ids) == 1), key=lambda chunk: chunk.slot)
    long = [chunk for chunk in plan.chunks if len(chunk.token_ids) > 1]
    flat = [*single, *long]
    positions = _tensor((position for chunk in flat for position in range(chunk.start, chunk.end)), device)
    last_rows: dict[int, int] = {}
    num_rows = 0
    for chunk in flat:
        num_rows += len(chunk.token_ids)
        last_rows[chunk.slot] = num_rows - 1
    return StepLayout(
        token_ids=_tensor((token_id for chunk in flat for token_id in chunk.token_ids), device)[None],
        positions=positions[None],
        slots=_tensor((chunk.slot for chunk in flat for _ in chunk.token_ids), device),
        sampling=_tensor((last_rows[chunk.slot] for chunk in plan.chunks if chunk.samples), device),
        groups=tuple(_lay_out_groups([*_neighbours(single), *([chunk] for chunk in long)], positions)),
        new_slots=tuple(chunk.slot for chunk in flat if chunk.start == 0),
    )


def _tensor(values: Iterable[int], device: torch.device) -> Tensor:
    return torch.tensor(list(values), dtype=torch.long, device=device)


def _neighbours(chunks: list[Chunk]) -> Iterator[list[Chunk]]:
    """Split chunks of one token, sorted by slot, where slots are not consecutive or where padding would cost more than another call."""
    group: list[Chunk] = []
    longest = 0
    for chunk in chunks:
        padding = len(group) * max(chunk.end - longest, 0) + max(longest - chunk.end, 0)  # that this chunk would add
        if group and (chunk.slot != group[-1].slot + 1 or padding > _CALL_TOKENS):
            yield group
            group, longest = [], 0
        group.append(chunk)
        longest = max(longest, chunk.end)
    if group:
        yield group


def _lay_out_groups(groups: list[list[Chunk]], positions: Tensor) -> Iterator[AttentionGroup]:
    row = 0
    for chunks in groups:
        tokens = slice(row, row + len(chunks) * len(chunks[0].token_ids))
        yield AttentionGroup(
            tokens=tokens,
            slots=slice(chunks[0].slot, chunks[-1].slot + 1),
            num_keys=max(chunk.end for chunk in chunks),
            positions=positions[tokens].view(len(chunks), -1),
        )
        row = tokens.stop
