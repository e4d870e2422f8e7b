"""Scales of blocks reach the values of their block, whole or cut off."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.quant.readers.blocks import spread, spread_flat

SIZES = st.integers(1, 20)


@settings(deadline=None)
@given(SIZES, SIZES, SIZES, SIZES)
def test_blocks_of_rows_and_columns(outputs, inputs, rows, columns):
    scales = torch.rand(-(-outputs // rows), -(-inputs // columns))
    groups = spread(scales, (outputs, inputs), (rows, columns))
    each = groups.repeat_interleave(inputs // groups.shape[1], 1)
    expected = [[scales[row // rows, column // columns] for column in range(inputs)] for row in range(outputs)]
    assert torch.equal(each, torch.tensor(expected))


@settings(deadline=None)
@given(SIZES, SIZES, SIZES)
def test_blocks_that_go_on_from_row_to_row(outputs, inputs, block):
    scales = torch.rand(-(-outputs * inputs // block))
    groups = spread_flat(scales, (outputs, inputs), block)
    each = groups.repeat_interleave(inputs // groups.shape[1], 1)
    expected = [[scales[(row * inputs + column) // block] for column in range(inputs)] for row in range(outputs)]
    assert torch.equal(each, torch.tensor(expected))
