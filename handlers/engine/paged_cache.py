"""Keys and values of every layer in blocks, which sequences may share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from handlers.engine.step_layout import AttentionGroup, StepLayout


@dataclass(frozen=True, slots=True)
class KVShape:
    """What one attention layer keeps of a token."""

    num_heads: int
    key_dim: int
    value_dim: int

    @property
    def elements(self) -> int:
        """Numbers a token."""
        return self.num_heads * (self.key_dim + self.value_dim)


class PagedCache:
    """A layer's keys are ``(num_blocks, block_tokens, num_heads, key_dim)``, its values alike (vLLM's PagedAttention, Kwon et al. 2023)."""

    def __init__(self, shapes: Sequence[KVShape], num_blocks: int, block_tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        self._shapes = shapes
        self._block_tokens = block_tokens
        self._dtype, self._device = dtype, device
        self.resize(num_blocks)

    @classmethod
    def over(cls, keys: Tensor, values: Tensor) -> PagedCache:
        """Return the cache of a single layer whose tensors there are already."""
        _, block_tokens, num_heads, key_dim = keys.shape
        cache = cls([KVShape(num_heads, key_dim, values.shape[3])], 0, block_tokens, keys.dtype, keys.device)
        cache._keys, cache._values = [keys], [values]
        return cache

    @property
    def nbytes(self) -> int:
        """What all blocks take."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values))

    def resize(self, num_blocks: int) -> None:
        """Have other blocks, with unknown content; the old ones are given back first, as there may be no room for both."""

        def allocate(num_heads: int, dim: int) -> Tensor:  # cleared block by block, in begin
            return torch.empty(num_blocks, self._block_tokens, num_heads, dim, dtype=self._dtype, device=self._device)

        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []
        for shape in self._shapes:
            self._keys.append(allocate(shape.num_heads, shape.key_dim))
            self._values.append(allocate(shape.num_heads, shape.value_dim))

    def tensors(self, layer: int) -> tuple[Tensor, Tensor]:
        """Return a layer's keys and values, which ``resize`` exchanges for others."""
        return self._keys[layer], self._values[layer]

    def begin(self, layout: StepLayout) -> None:
        """Zero the blocks that the step begins: their padding is masked, but a NaN that a former owner left would pass through a mask."""
        if len(layout.new_blocks):
            for tensor in (*self._keys, *self._values):
                tensor.index_fill_(0, layout.new_blocks, 0)

    def write(self, layer: int, layout: StepLayout, key: Tensor, value: Tensor) -> None:
        """Keep the step's keys and values, ``(num_tokens, num_heads, dim)`` each."""
        self._keys[layer].flatten(0, 1).index_copy_(0, layout.places, key)
        self._values[layer].flatten(0, 1).index_copy_(0, layout.places, value)

    def context(self, layer: int, group: AttentionGroup) -> tuple[Tensor, Tensor]:
        """Return a group's keys and values, gathered from their blocks: ``(num_sequences, num_heads, num_keys, dim)`` each."""
        return _gather(self._keys[layer], group), _gather(self._values[layer], group)


def _gather(blocks: Tensor, group: AttentionGroup) -> Tensor:
    return blocks[group.block_table].flatten(1, 2)[:, : group.num_keys].transpose(1, 2)
