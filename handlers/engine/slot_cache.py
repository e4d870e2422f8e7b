"""Keys and values of every layer in contiguous slots, one a sequence."""

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


class SlotCache:
    """A layer's keys are ``(num_slots, num_heads, max_model_len, key_dim)``: a slot's context is a strided view, never a copy."""

    def __init__(self, shapes: Sequence[KVShape], num_slots: int, max_model_len: int, dtype: torch.dtype, device: torch.device) -> None:
        def zeros(num_heads: int, dim: int) -> Tensor:
            return torch.zeros(num_slots, num_heads, max_model_len, dim, dtype=dtype, device=device)

        self._keys = [zeros(shape.num_heads, shape.key_dim) for shape in shapes]
        self._values = [zeros(shape.num_heads, shape.value_dim) for shape in shapes]
        self._num_written = [0] * num_slots

    def begin(self, layout: StepLayout) -> None:
        """Make room for the sequences that start in this step, and note what the step will write."""
        for slot in layout.new_slots:
            self._clear(slot)
        for group in layout.groups:
            for slot in range(group.slots.start, group.slots.stop):
                self._num_written[slot] = max(self._num_written[slot], group.num_keys)

    def clear(self) -> None:
        """Empty every slot."""
        for slot in range(len(self._num_written)):
            self._clear(slot)

    def write(self, layer: int, layout: StepLayout, key: Tensor, value: Tensor) -> None:
        """Keep the step's keys and values, ``(1, num_heads, num_tokens, dim)`` each."""
        self._keys[layer][layout.slots, :, layout.positions[0]] = key[0].transpose(0, 1)
        self._values[layer][layout.slots, :, layout.positions[0]] = value[0].transpose(0, 1)

    def context(self, layer: int, group: AttentionGroup) -> tuple[Tensor, Tensor]:
        """Return views of a group's keys and values, ``(num_sequences, num_heads, num_keys, dim)`` each."""
        return self._keys[layer][group.slots, :, : group.num_keys], self._values[layer][group.slots, :, : group.num_keys]

    def _clear(self, slot: int) -> None:
        """Zero what was written: padding is masked, but a NaN that a former sequence left behind would pass through a mask."""
        written = self._num_written[slot]
        for tensor in (*self._keys, *self._values) if written else ():
            tensor[slot, :, :written].zero_()
        self._num_written[slot] = 0
