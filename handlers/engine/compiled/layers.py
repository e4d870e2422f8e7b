"""All layers of a decoder, computed by compiled code where a step's rows are few, alike and fit it, and one by one where not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from handlers.engine.compiled.decode_layer import weights_of
from handlers.engine.lean_layers import LeanLayers, Rotation
from handlers.engine.paged_cache import PagedCache
from handlers.engine.step_layout import AttentionGroup, StepLayout

CompiledLayer = Callable[[list[Tensor]], Sequence[Tensor]]
"""``DecodeLayer`` with its inputs in one list."""

_MAX_ROWS_OF_A_SEQUENCE = 16
"""Rows of one sequence are computed as if they were of several: the same keys are read for each. More than this are a prompt."""
_MAX_PADDING = 8192
"""Keys that may be read for nothing because contexts differ in length: at 30 ns each, less than a layer's operators take one by one."""


def joint_block_table(layout: StepLayout, block_tokens: int, most_blocks: int) -> Tensor | None:
    """Return the blocks of each row's context, ``(num_rows, width)``.

    None if the step reads a prompt, or if rows of one width would read much more than their contexts, or more than ``most_blocks``.
    """
    groups = layout.groups
    width = max(group.block_table.shape[1] for group in groups)
    num_blocks = len(layout.places) * width
    num_keys = sum(group.num_sequences * group.num_queries * group.num_keys for group in groups)
    has_prompt = any(group.num_queries > _MAX_ROWS_OF_A_SEQUENCE for group in groups)
    if has_prompt or num_blocks > most_blocks or num_blocks * block_tokens > num_keys + _MAX_PADDING:
        return None
    return torch.cat([_widen(group, width) for group in groups])


class CompiledLayers:
    """The layers of ``lean``, each with the code that was compiled for it."""

    def __init__(self, lean: LeanLayers, codes: Sequence[CompiledLayer], block_tokens: int) -> None:
        self._lean = lean
        self._block_tokens = block_tokens
        weights = ([weight for weight in weights_of(layer) if weight is not None] for layer in lean.layers)
        self._calls = list(zip(codes, weights, strict=True))

    def advance(self, residual: Tensor, rotation: Rotation, layout: StepLayout, cache: PagedCache) -> Tensor:
        """Return the residual stream ``(num_tokens, hidden)`` after the last layer; see LeanLayers."""
        table = joint_block_table(layout, self._block_tokens, len(cache.tensors(0)[0]))
        if table is None:
            return self._lean.advance(residual, rotation, layout, cache)
        step = (*rotation, layout.positions[0], layout.places, table)
        for index, (code, weights) in enumerate(self._calls):
            [residual] = code([residual, *step, *cache.tensors(index), *weights])
        return residual


def _widen(group: AttentionGroup, width: int) -> Tensor:
    """Return the block table of a group's rows, filled up with the first block, which is certainly clean.  # (num_rows, width)"""
    table = group.block_table
    filling = table[:, :1].expand(-1, width - table.shape[1])
    return torch.cat([table, filling], dim=1).repeat_interleave(group.num_queries, dim=0)
