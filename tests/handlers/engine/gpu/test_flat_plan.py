"""Flattening a plan for the GPU: every token, place, context and table is where kernels look for it, whatever has been there before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.gpu.block_tables import BlockTables, Ints
from handlers.engine.gpu.flat_plan import FlatPlan
from handlers.engine.gpu.step_input import StepInput, StepShape
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.sequence import UNKNOWN

BLOCK = 4
WIDTH = 32  # so that sequences have up to 128 tokens
GARBAGE = 12345


def blocks(index: int, end: int) -> list[int]:
    """Return the blocks of a sequence, which are its own and in no order, and one more than it needs."""
    return [100 * index + (7 * block) % 100 for block in range(-(-end // BLOCK) + 1)]


def chunk(index: int, start: int, num_tokens: int = 1, *, samples: bool = True, num_drafts: int = 0, late_row: int | None = None) -> Chunk:
    end = start + num_tokens
    token_ids = [1000 * index + position for position in range(start, end)]
    if late_row is not None:
        token_ids[-1] = UNKNOWN
    drafts = min(num_drafts, num_tokens - 1) if samples else 0
    return Chunk(str(index), start, tuple(token_ids), blocks(index, end), samples, drafts, late_row)


def lay_out(chunks: Sequence[Chunk], tables: BlockTables | None = None, shape: StepShape | None = None) -> StepInput[Ints]:
    plan = FlatPlan(StepPlan(tuple(chunks)), BLOCK)
    shape = shape or plan.shape
    step = shape.split(np.full(shape.size, GARBAGE, np.int32))
    plan.write(step, tables or BlockTables(WIDTH, BLOCK))
    return step


CHUNKS = st.lists(
    st.builds(
        chunk,
        st.integers(0, 9),
        st.integers(0, 100),
        st.integers(1, 9),
        samples=st.booleans(),
        num_drafts=st.integers(0, 8),
        late_row=st.none() | st.integers(0, 50),
    ),
    min_size=1,
    unique_by=lambda chunk: chunk.sequence_id,
)


def expected_tokens(chunk: Chunk) -> list[int]:
    late = [] if chunk.late_row is None else [-1 - chunk.late_row]
    return [*chunk.token_ids[: len(chunk.token_ids) - len(late)], *late]


@given(CHUNKS)
def test_every_token_lies_where_kernels_look_for_it(chunks: list[Chunk]) -> None:
    step = lay_out(chunks)
    decodes = [each for each in chunks if not each.is_prompt]
    prompts = [each for each in chunks if each.is_prompt]
    row = 0
    for each in [*decodes, *prompts]:
        tokens = slice(row, row + len(each.token_ids))
        positions = range(each.start, each.end)
        assert step.token_ids[tokens].tolist() == expected_tokens(each)
        assert step.positions[tokens].tolist() == list(positions)
        assert step.places[tokens].tolist() == [each.block_ids[p // BLOCK] * BLOCK + p % BLOCK for p in positions]
        if not each.is_prompt:
            assert step.context_lens[tokens].tolist() == [position + 1 for position in positions]
            for table, context in zip(step.block_table[tokens], step.context_lens[tokens], strict=True):
                assert table[: -(-context // BLOCK)].tolist() == each.block_ids[: -(-context // BLOCK)]
        row = tokens.stop
    assert row == len(step.token_ids) == len(step.places)
    assert len(step.context_lens) == sum(len(each.token_ids) for each in decodes)
    assert np.diff(step.query_starts).tolist() == [len(each.token_ids) for each in prompts]
    assert step.query_starts[0] == 0
    assert step.prompt_lens.tolist() == [each.end for each in prompts]
    for table, each in zip(step.prompt_block_table, prompts, strict=True):
        assert table[: -(-each.end // BLOCK)].tolist() == each.block_ids[: -(-each.end // BLOCK)]


@given(CHUNKS)
def test_logits_are_wanted_in_the_order_of_the_plan(chunks: list[Chunk]) -> None:
    step = lay_out(chunks)
    wanted = [token for each in chunks for token in expected_tokens(each)[len(each.token_ids) - each.num_logits :]]
    assert step.token_ids[step.sampling].tolist() == wanted


@given(CHUNKS, st.integers(0, 20))
def test_rows_that_are_not_needed_become_padding(chunks: list[Chunk], more: int) -> None:
    decodes = [each for each in chunks if not each.is_prompt]
    exact = lay_out(decodes)
    num_rows = len(exact.token_ids)
    padded = lay_out(decodes, shape=StepShape.of_decodes(num_rows + more, WIDTH))
    for name in ("token_ids", "positions", "places", "context_lens"):
        assert getattr(padded, name)[:num_rows].tolist() == getattr(exact, name).tolist()
        assert set(getattr(padded, name)[num_rows:].tolist()) <= {-1 if name == "places" else 0}
    assert padded.sampling.tolist() == [*exact.sampling, *[0] * (num_rows + more - len(exact.sampling))]
    for row, context in enumerate(exact.context_lens):
        used = -(-context // BLOCK)
        assert padded.block_table[row, :used].tolist() == exact.block_table[row, :used].tolist()


@given(CHUNKS)
def test_parts_do_not_overlap_and_begin_at_multiples_of_16_bytes(chunks: list[Chunk]) -> None:
    shape = FlatPlan(StepPlan(tuple(chunks)), BLOCK).shape
    row = np.zeros(shape.size, np.int32)
    step = shape.split(row)
    for name in StepInput.__dataclass_fields__:
        part = getattr(step, name)
        assert (part.ctypes.data - row.ctypes.data) % 16 == 0 or not part.size
        assert not part.any()
        part[...] = 1
    assert row.sum() == sum(getattr(step, name).size for name in StepInput.__dataclass_fields__)


class Life:
    """Sequences whose lists grow, start anew and end, as an engine's do."""

    def __init__(self) -> None:
        self.lists: dict[int, list[int]] = {}
        self.ends: dict[int, int] = {}
        self.num_starts = 0

    def chunk(self, index: int, num_tokens: int, *, starts_anew: bool) -> Chunk:
        if starts_anew or index not in self.lists or self.ends[index] + num_tokens > WIDTH * BLOCK:
            self.lists[index], self.ends[index] = [], 0
            self.num_starts += 1
        start, end = self.ends[index], self.ends[index] + num_tokens
        block_ids = self.lists[index]
        while len(block_ids) * BLOCK < end:
            block_ids.append(1000 * self.num_starts + len(block_ids))
        self.ends[index] = end
        return Chunk(str(index), start, (0,) * num_tokens, block_ids, samples=True)


STEPS = st.lists(
    st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), st.booleans()), min_size=1, max_size=12, unique_by=lambda each: each[0]),
    max_size=12,
)


@given(STEPS)
def test_tables_that_only_take_what_is_new_are_those_that_are_made_anew(steps: list[list[tuple[int, int, bool]]]) -> None:
    life, tables = Life(), BlockTables(WIDTH, BLOCK)
    for specs in steps:
        chunks = [life.chunk(index, num_tokens, starts_anew=anew) for index, num_tokens, anew in specs]
        kept, fresh = lay_out(chunks, tables), lay_out(chunks)
        for name in StepInput.__dataclass_fields__:
            assert getattr(kept, name).tolist() == getattr(fresh, name).tolist() or "table" in name
        for name, lens in (("block_table", fresh.context_lens), ("prompt_block_table", fresh.prompt_lens)):
            for table, expected, context in zip(getattr(kept, name), getattr(fresh, name), lens, strict=True):
                assert table[: -(-context // BLOCK)].tolist() == expected[: -(-context // BLOCK)].tolist()


def test_the_tables_take_back_the_rows_of_those_that_have_gone() -> None:
    tables = BlockTables(WIDTH, BLOCK)
    for index in range(200):
        lay_out([chunk(index, 5), chunk(index + 1000, 0, 3)], tables)
    assert len(tables.numbers) == 8
    lay_out([chunk(index, 5) for index in range(20)], tables)
    assert len(tables.numbers) == 32


def test_a_step_without_chunks_is_all_padding() -> None:
    step = lay_out([], shape=StepShape.of_decodes(3, WIDTH))
    assert step.places.tolist() == [-1] * 3
    assert step.context_lens.tolist() == [0] * 3
