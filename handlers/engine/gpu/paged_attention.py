"""The attention of one step over the blocks: one kernel for running sequences, one for prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from handlers.engine.attention import Scoring
from handlers.engine.gpu.kernels.decode_attention import decode_attention
from handlers.engine.gpu.step_input import StepInput


class Prefill(Protocol):
    """The attention of prompts; see ``kernels.prefill_attention`` for the shapes."""

    def __call__(
        self,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        block_table: Tensor,
        query_starts: Tensor,
        context_lens: Tensor,
        max_query_len: int,
        scoring: Scoring,
        *,
        scales: Tensor | None = None,
    ) -> Tensor:
        """Return ``(num_tokens, num_heads, head_dim)``."""
        ...


@dataclass(frozen=True, slots=True)
class PagedAttention:
    """``num_splits``: among how many programs the context of a running sequence is divided; ``max_query_len`` is the longest chunk's."""

    step: StepInput[Tensor]
    num_splits: int
    max_query_len: int
    prefill: Prefill

    def attend(self, query: Tensor, keys: Tensor, values: Tensor, scoring: Scoring, scales: Tensor | None) -> Tensor:
        """Return ``(num_tokens, num_heads, head_dim)``, as ``query``; the step's own keys and values are in their blocks already."""
        step = self.step
        num_rows, num_prompts = len(step.context_lens), len(step.prompt_lens)
        outputs = []
        if num_rows:
            rows = query[:num_rows]
            outputs.append(
                decode_attention(
                    rows, keys, values, step.block_table, step.context_lens, scoring, num_splits=self.num_splits, scales=scales
                )
            )
        if num_prompts:
            prompts = query[num_rows:]
            outputs.append(
                self.prefill(
                    prompts,
                    keys,
                    values,
                    step.prompt_block_table,
                    step.query_starts,
                    step.prompt_lens,
                    self.max_query_len,
                    scoring,
                    scales=scales,
                )
            )
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)
