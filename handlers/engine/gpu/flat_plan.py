"""Flatten a planned step into the numbers that kernels read; by array operations, as the GPU may be waiting for them."""

from __future__ import annotations

from itertools import chain

import numpy as np

from handlers.engine.gpu.block_tables import BlockTables, Ints, ranges
from handlers.engine.gpu.step_input import StepInput, StepShape, aligned
from handlers.engine.scheduler import Chunk, StepPlan


class FlatPlan:
    """The chunks of a plan one after the other, running sequences before prompts.

    ``max_context`` and ``max_query_len`` are tokens in the longest context, and in the longest chunk of a prompt; 0 where there is none.
    With ``has_late_tokens`` some are not known yet.
    """

    def __init__(self, plan: StepPlan, block_tokens: int) -> None:
        is_prompt = [chunk.is_prompt for chunk in plan.chunks]
        order = sorted(range(len(is_prompt)), key=is_prompt.__getitem__)
        self._chunks = [plan.chunks[index] for index in order]
        self._block_tokens = block_tokens
        self._num_decodes = is_prompt.count(False)
        self._starts = _ints([chunk.start for chunk in self._chunks])
        self._counts = _ints([len(chunk.token_ids) for chunk in self._chunks])
        self._ends = self._starts + self._counts  # which are the contexts
        self._bounds = np.concatenate(([0], self._counts)).cumsum(dtype=np.int32)  # of the chunks in the row of tokens
        num_logits = _ints([chunk.num_logits for chunk in plan.chunks])
        ends_in_plan = np.empty_like(self._ends)
        ends_in_plan[order] = self._bounds[1:]
        self._sampling = ranges(ends_in_plan - num_logits, num_logits)
        self.num_tokens = int(self._bounds[-1])
        self.num_logits = len(self._sampling)
        self.has_late_tokens = any(chunk.late_row is not None for chunk in plan.chunks)
        self.max_context = int(self._ends.max(initial=0))
        self.max_query_len = int(self._counts[self._num_decodes :].max(initial=0))

    @property
    def shape(self) -> StepShape:
        """The shape that holds the plan exactly, with tables for the longest context."""
        num_rows = int(self._bounds[self._num_decodes])
        num_prompts = len(self._chunks) - self._num_decodes
        return StepShape(num_rows, num_prompts, self.num_tokens - num_rows, self.num_logits, aligned(self._num_blocks))

    def write(self, step: StepInput[Ints], tables: BlockTables) -> None:
        """Fill ``step``, which has the shape of the plan; or one without prompts and with more rows, which become padding."""
        size = self._block_tokens
        table_rows = tables.update(self._chunks, self._starts, self._ends)
        row_of_token = np.repeat(table_rows, self._counts)
        positions = ranges(self._starts, self._counts)
        _fill(step.token_ids, _ints(list(chain.from_iterable(map(_token_ids, self._chunks)))))
        _fill(step.positions, positions)
        _fill(step.places, tables.numbers[row_of_token, positions // size] * size + positions % size, padding=-1)
        _fill(step.sampling, self._sampling)
        num_rows = int(self._bounds[self._num_decodes])
        _fill(step.context_lens, positions[:num_rows] + 1)
        self._fill_table(step.block_table, tables, row_of_token[:num_rows])
        step.query_starts[:] = self._bounds[self._num_decodes :] - num_rows
        step.prompt_lens[:] = self._ends[self._num_decodes :]
        self._fill_table(step.prompt_block_table, tables, table_rows[self._num_decodes :])

    @property
    def _num_blocks(self) -> int:
        """Blocks of the longest context."""
        return -(-self.max_context // self._block_tokens)

    def _fill_table(self, part: Ints, tables: BlockTables, rows: Ints) -> None:
        """Copy as many columns as any row needs: what lies behind a context is never read."""
        part[: len(rows), : self._num_blocks] = tables.numbers[rows, : self._num_blocks]


def _token_ids(chunk: Chunk) -> tuple[int, ...]:
    """Return its tokens, with one that is not known yet as StepInput has it."""
    return chunk.token_ids if chunk.late_row is None else (*chunk.token_ids[:-1], -1 - chunk.late_row)


def _fill(part: Ints, values: Ints, padding: int = 0) -> None:
    part[: len(values)] = values
    part[len(values) :] = padding


def _ints(values: list[int]) -> Ints:
    return np.array(values, np.int32)
