"""Run models that our own runners cannot: whatever transformers' ``generate`` serves, state-space and encoder-decoder models too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.static_batch import StaticBatch
from handlers.engine.weight_memory import weight_bytes

_PASS_TOKENS = 32
"""A forward pass over a few rows takes about as long as reading so many tokens of a prompt: of 135M parameters on a CPU, both 30 ms."""


@dataclass(slots=True)
class PaddingMeter:
    """Counts the token positions that batches compute, and how many of them are of no use: padding, and rows whose sequence has ended."""

    positions: int = 0
    padding: int = 0

    def count(self, positions: int, used: int) -> None:
        """Count the positions of a forward pass."""
        self.positions += positions
        self.padding += positions - used


class GenerateRunner:
    """A Runner over batches that never grow: sequences that start in one step form a batch, and a step is a forward pass of each batch.

    What such a model keeps of a sequence is no list of blocks, so a block is a whole sequence here: never full, hence never shared. Prompts
    are read whole: the scheduler's token budget must leave room for that. Every running sequence must be in every plan.

    Many small batches are dear. Once the passes beyond the first have cost as much as reading all sequences again would, just that is done,
    in a single batch: never more than twice the work of someone who knows what comes (the ski rental problem). A model whose sequences
    cannot share a batch (``can_share``) stays with batches of one. ``meter`` counts what the batches compute.
    """

    def __init__(
        self, model: Any, *, max_running: int, max_model_len: int, can_share: bool = True, meter: PaddingMeter | None = None
    ) -> None:
        self.num_blocks = max_running
        self.block_tokens = max_model_len
        self.max_model_len = max_model_len
        self.vocab_size: int = model.config.get_text_config().vocab_size
        self.weight_bytes = weight_bytes(model)
        self.kv_bytes = 0
        self._model = model
        self._can_share = can_share
        self._meter = meter or PaddingMeter()
        self.reset()

    def reset(self) -> None:
        """Forget all sequences; see Runner."""
        self._contexts: dict[str, list[int]] = {}  # all tokens of every running sequence
        self._batches: list[StaticBatch] = []
        self._num_read: dict[str, int] = {}  # tokens that the batches have read of each sequence
        self._extra_tokens = 0  # what extra passes have cost since the last regrouping, in tokens

    @torch.inference_mode()
    def run(self, plan: StepPlan) -> Tensor:
        """Compute a step; see Runner. It may be repeated after an error, and after its end."""
        if any(chunk.start < self._num_read.get(chunk.sequence_id, 0) for chunk in plan.chunks if chunk.start):
            self._batches = []  # they have read what is to be read again, and cannot go back
        self._contexts = {chunk.sequence_id: self._context(chunk) for chunk in plan.chunks}
        self._drop_ended(plan)
        kept = [] if self._should_regroup() else self._batches
        going_on = {sequence_id for batch in kept for sequence_id in batch.sequence_ids}
        fresh = {sequence_id: context for sequence_id, context in self._contexts.items() if sequence_id not in going_on}
        if self._model.config.is_encoder_decoder and any(chunk.start for chunk in plan.chunks if chunk.sequence_id in fresh):
            raise RuntimeError("an encoder-decoder cannot take up a sequence again")  # what it has generated is no prompt
        started = [StaticBatch(self._model, prompts) for prompts in self._divide(fresh)]
        logits: dict[str, Tensor] = {}
        for batch in started:
            logits |= batch.read_prompts()
            self._meter.count(batch.num_rows * batch.num_columns, sum(len(fresh[sequence_id]) for sequence_id in batch.sequence_ids))
        self._batches = []  # until all have advanced: after an error in one, all are read again
        for batch in kept:
            logits |= batch.append({sequence_id: self._contexts[sequence_id][-1] for sequence_id in batch.sequence_ids})
            self._meter.count(batch.num_rows, len(batch.sequence_ids))
        self._batches = [*kept, *started]
        self._num_read = {chunk.sequence_id: chunk.end for chunk in plan.chunks}
        return torch.stack([logits[chunk.sequence_id] for chunk in plan.chunks])

    def _context(self, chunk: Chunk) -> list[int]:
        """Return all tokens of a sequence up to the end of ``chunk``."""
        if not chunk.samples:
            raise ValueError("a model that runs on generate reads prompts whole: the scheduler's token budget is too small")
        context = self._contexts.get(chunk.sequence_id, [])
        context[chunk.start :] = chunk.token_ids
        return context

    def _drop_ended(self, plan: StepPlan) -> None:
        going_on = {chunk.sequence_id for chunk in plan.chunks if chunk.start}
        for batch in self._batches:
            batch.retain(going_on)
        self._batches = [batch for batch in self._batches if batch.sequence_ids]

    def _should_regroup(self) -> bool:
        if self._model.config.is_encoder_decoder or not self._can_share:
            return False
        if any(batch.num_columns >= self.max_model_len for batch in self._batches):
            return True  # the longest sequence has ended, and its row must not leave the window
        self._extra_tokens += _PASS_TOKENS * max(len(self._batches) - 1, 0)
        if self._extra_tokens <= sum(len(context) for context in self._contexts.values()):
            return False
        self._extra_tokens = 0
        return True

    def _divide(self, contexts: dict[str, list[int]]) -> list[dict[str, list[int]]]:
        """Divide sequences that are to be read whole into batches."""
        if self._can_share:
            return [contexts] if contexts else []
        return [{sequence_id: context} for sequence_id, context in contexts.items()]
