"""Flattening a plan: what goes where, and which sequences attend together."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.step_layout import StepLayout, lay_out

BLOCK = 4


def chunk(index: int, start: int, num_tokens: int = 1, samples: bool = True) -> Chunk:
    """Return a chunk of a sequence whose blocks are its own: ``1000 * index`` and those that follow."""
    num_blocks = -(-(start + num_tokens) // BLOCK)
    blocks = list(range(1000 * index, 1000 * index + num_blocks + 1))  # one more than it needs
    return Chunk(str(index), start, tuple(range(100 * index, 100 * index + num_tokens)), blocks, samples)


def lay(*chunks: Chunk, most_blocks: int = 10**6) -> StepLayout:
    return lay_out(StepPlan(chunks), BLOCK, torch.device("cpu"), most_blocks=most_blocks)


def groups_of(*chunks: Chunk) -> list[tuple[int, int, int]]:
    return [(group.num_sequences, group.num_queries, group.num_keys) for group in lay(*chunks).groups]


def test_single_tokens_attend_together_unless_one_context_is_much_longer():
    short = [chunk(index, 10 - index) for index in range(8)]
    assert groups_of(*short, chunk(8, 20)) == [(9, 1, 21)]
    assert groups_of(*short, chunk(8, 500)) == [(8, 1, 11), (1, 1, 501)]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(1, 500))
def test_no_more_blocks_are_copied_together_than_is_allowed_unless_one_sequence_has_more(starts: list[int], most_blocks: int):
    groups = lay(*(chunk(index, start) for index, start in enumerate(starts)), most_blocks=most_blocks).groups
    assert sum(group.num_sequences for group in groups) == len(starts)
    assert all(group.block_table.numel() <= most_blocks for group in groups if group.num_sequences > 1)


def test_each_longer_chunk_is_a_group_of_its_own():
    assert groups_of(chunk(1, 0, num_tokens=4), chunk(0, 6), chunk(2, 8, num_tokens=3)) == [(1, 1, 7), (1, 4, 4), (1, 3, 11)]


def test_a_shorter_context_is_filled_up_with_its_own_first_block():
    [group] = lay(chunk(1, 2), chunk(2, 9)).groups
    assert group.block_table.tolist() == [[1000, 1000, 1000], [2000, 2001, 2002]]


def test_blocks_that_a_chunk_begins_are_new():
    assert lay(chunk(0, 0, num_tokens=5)).new_blocks.tolist() == [0, 1]
    assert lay(chunk(0, 4)).new_blocks.tolist() == [1]
    assert lay(chunk(0, 5, num_tokens=3)).new_blocks.tolist() == []
    assert lay(chunk(0, 7, num_tokens=2)).new_blocks.tolist() == [2]


CHUNKS = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 500), st.integers(1, 6), st.booleans()), min_size=1, unique_by=lambda chunk: chunk[0]
)


@given(CHUNKS)
def test_every_token_is_laid_out_once_in_its_block_at_its_position(specs):
    chunks = tuple(chunk(*spec) for spec in specs)
    layout = lay(*chunks)
    laid_out = set(zip(layout.places.tolist(), layout.positions[0].tolist(), layout.token_ids[0].tolist(), strict=True))
    planned = {(1000 * BLOCK * int(c.sequence_id) + c.start + i, c.start + i, token) for c in chunks for i, token in enumerate(c.token_ids)}
    assert laid_out == planned
    assert len(layout.places) == len(planned)
    assert layout.token_ids[0, layout.sampling].tolist() == [c.token_ids[-1] for c in chunks if c.samples]


@given(CHUNKS)
def test_groups_cover_the_row_in_order_and_their_longest_context(specs):
    layout = lay(*(chunk(*spec) for spec in specs))
    row = 0
    for group in layout.groups:
        assert group.tokens.start == row
        row = group.tokens.stop
        assert row - group.tokens.start == group.num_sequences * group.num_queries
        assert group.num_keys == group.positions.max() + 1
        places = group.block_table.gather(1, group.positions // BLOCK) * BLOCK + group.positions % BLOCK
        assert places.flatten().tolist() == layout.places[group.tokens].tolist()
    assert row == len(layout.places)


def test_masks_are_causal_and_end_at_the_window():
    group = lay(chunk(0, 2, num_tokens=2)).groups[0]
    visible = group.mask(None, 1, torch.float32)[0, 0] == 0
    assert visible.tolist() == [[True, True, True, False], [True, True, True, True]]
    visible = group.mask(2, 2, torch.float32)[0, 0] == 0
    assert visible.tolist() == [[False, True, True, False], [False, False, True, True]] * 2
