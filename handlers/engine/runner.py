"""What the engine asks of a model: run a planned step, return the logits of the rows that sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from handlers.engine.scheduler import StepPlan

if TYPE_CHECKING:
    from torch import Tensor


class Runner(Protocol):
    """Owns the device, its memory and the layout of the KV cache in it. Used by one thread."""

    @property
    def num_slots(self) -> int:
        """Sequences that can be held at once."""
        ...

    @property
    def max_model_len(self) -> int:
        """Tokens that a slot holds."""
        ...

    @property
    def vocab_size(self) -> int:
        """Token ids run from 0 to ``vocab_size - 1``."""
        ...

    def run(self, plan: StepPlan) -> Tensor:
        """Compute every chunk and keep its keys and values.

        Returns float32 logits ``(num_sampling_chunks, vocab_size)``, in the order of the plan. A chunk that starts at position 0 begins a
        new sequence in its slot. Whatever it raises, ``reset`` makes the runner usable again.
        """
        ...

    def reset(self) -> None:
        """Forget all sequences."""
        ...
