"""Memory for weights: pieces never overlap, begin on cache lines, and go when nobody has them."""

import gc
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from handlers.native.huge_pages import HugePages

SIZES = st.lists(st.sampled_from([1, 63, 64, 1000, 1 << 20, 5 << 20, 17 << 20]), max_size=12)


@given(SIZES)
def test_pieces_are_aligned_and_do_not_overlap(sizes):
    memory = HugePages()
    pieces = [memory.empty(size, dtype=torch.uint8) for size in sizes]
    spans = sorted((piece.data_ptr(), piece.data_ptr() + piece.nbytes) for piece in pieces)
    assert all(start % 64 == 0 for start, _ in spans)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


def test_a_piece_has_the_shape_and_type_asked_for():
    piece = HugePages().empty(3, 5, dtype=torch.bfloat16).fill_(1.5)
    assert (piece.shape, piece.dtype, piece.sum().item()) == ((3, 5), torch.bfloat16, 22.5)


def test_memory_goes_with_its_pieces():
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")

    def virtual_kb() -> int:
        return int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize")).split()[1])

    before = virtual_kb()
    piece = HugePages().empty(1 << 30, dtype=torch.uint8)
    assert virtual_kb() - before > 1 << 20
    del piece
    gc.collect()
    assert virtual_kb() - before < 1 << 19
