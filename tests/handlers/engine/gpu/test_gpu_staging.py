"""Sending numbers to the device: what was sent last is there, and what is being filled is something else."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.gpu.staging import Staging

CPU = torch.device("cpu")


@given(st.lists(st.integers(0, 100), min_size=1))
def test_the_device_has_what_was_sent_last(sizes: list[int]) -> None:
    staging = Staging(CPU)
    for number, size in enumerate(sizes):
        staging.begin(size)[:] = number
        row = staging.send(size)
        assert row.tolist() == [number] * size
        staging.begin(size)[:] = -1  # the next step is prepared while this one runs
        assert row.tolist() == [number] * size


def test_the_row_on_the_device_moves_only_when_it_must_grow() -> None:
    staging = Staging(CPU, 10)
    staging.begin(3)
    before = staging.send(3).data_ptr()
    staging.begin(10)
    assert staging.send(10).data_ptr() == before
    staging.begin(11)
    assert staging.send(11).data_ptr() != before
