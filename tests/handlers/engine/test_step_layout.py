"""Flattening a plan: what goes where, and which sequences attend together."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.step_layout import lay_out

CPU = torch.device("cpu")


def chunk(slot: int, start: int, num_tokens: int = 1, samples: bool = True) -> Chunk:
    return Chunk(str(slot), slot, start, tuple(range(100 * slot, 100 * slot + num_tokens)), samples)


def groups_of(*chunks: Chunk) -> list[tuple[slice, int, int]]:
    return [(group.slots, group.num_queries, group.num_keys) for group in lay_out(StepPlan(chunks), CPU).groups]


def test_neighbouring_slots_attend_together_and_a_hole_splits_them():
    assert groups_of(chunk(2, 5), chunk(0, 9), chunk(1, 7), chunk(4, 3)) == [(slice(0, 3), 1, 10), (slice(4, 5), 1, 4)]


def test_a_context_much_longer_than_its_neighbours_is_left_alone():
    short = [chunk(slot, 10) for slot in range(8)]
    assert groups_of(*short, chunk(8, 5000)) == [(slice(0, 8), 1, 11), (slice(8, 9), 1, 5001)]
    assert groups_of(*short, chunk(8, 20)) == [(slice(0, 9), 1, 21)]


def test_each_longer_chunk_is_a_group_of_its_own():
    assert groups_of(chunk(1, 0, num_tokens=4), chunk(0, 6), chunk(2, 8, num_tokens=3)) == [
        (slice(0, 1), 1, 7),
        (slice(1, 2), 4, 4),
        (slice(2, 3), 3, 11),
    ]


CHUNKS = st.lists(
    st.tuples(st.integers(0, 15), st.integers(0, 1000), st.integers(1, 6), st.booleans()), min_size=1, unique_by=lambda chunk: chunk[0]
)


@given(CHUNKS)
def test_every_token_is_laid_out_once_in_its_slot_at_its_position(specs):
    chunks = tuple(chunk(*spec) for spec in specs)
    layout = lay_out(StepPlan(chunks), CPU)
    laid_out = set(zip(layout.slots.tolist(), layout.positions[0].tolist(), layout.token_ids[0].tolist(), strict=True))
    planned = {(c.slot, c.start + i, token_id) for c in chunks for i, token_id in enumerate(c.token_ids)}
    assert laid_out == planned
    assert len(layout.slots) == len(planned)
    assert layout.token_ids[0, layout.sampling].tolist() == [c.token_ids[-1] for c in chunks if c.samples]
    assert sorted(layout.new_slots) == sorted(c.slot for c in chunks if c.start == 0)


@given(CHUNKS)
def test_groups_cover_the_row_in_order_and_their_longest_context(specs):
    layout = lay_out(StepPlan(tuple(chunk(*spec) for spec in specs)), CPU)
    row = 0
    for group in layout.groups:
        assert group.tokens.start == row
        row = group.tokens.stop
        slots = layout.slots[group.tokens].view(group.num_sequences, group.num_queries)
        assert slots[:, 0].tolist() == list(range(group.slots.start, group.slots.stop))
        assert (slots == slots[:, :1]).all()
        assert group.num_keys == group.positions.max() + 1
    assert row == len(layout.slots)


def test_masks_are_causal_and_end_at_the_window():
    group = lay_out(StepPlan((chunk(0, 2, num_tokens=2),)), CPU).groups[0]
    visible = group.mask(None, 1, torch.float32)[0, 0] == 0
    assert visible.tolist() == [[True, True, True, False], [True, True, True, True]]
    visible = group.mask(2, 2, torch.float32)[0, 0] == 0
    assert visible.tolist() == [[False, True, True, False], [False, False, True, True]] * 2
