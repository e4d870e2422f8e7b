"""The slot pool: lowest first, never twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.slots import SlotPool


def test_lowest_free_slot_comes_first():
    pool = SlotPool(3)
    assert [pool.allocate() for _ in range(3)] == [0, 1, 2]
    pool.free(2)
    pool.free(0)
    assert pool.allocate() == 0
    assert (pool.num_free, pool.num_used) == (1, 2)


def test_allocating_from_an_empty_pool_raises():
    pool = SlotPool(1)
    pool.allocate()
    with pytest.raises(IndexError):
        pool.allocate()


@pytest.mark.parametrize("owned", [[0], [0, 1, 1], [0, 2]])
def test_integrity_check_finds_lost_and_shared_slots(owned):
    pool = SlotPool(3)
    pool.allocate()
    pool.allocate()
    pool.check_integrity([0, 1])
    with pytest.raises(RuntimeError, match="partition"):
        pool.check_integrity(owned)


@given(st.lists(st.one_of(st.none(), st.integers(0, 7))))
def test_any_order_of_allocations_keeps_the_pool_intact(operations):
    pool, owned = SlotPool(4), []
    for index in operations:
        if index is None and pool.num_free:
            slot = pool.allocate()
            assert slot not in owned
            owned.append(slot)
        elif index is not None and owned:
            pool.free(owned.pop(index % len(owned)))
        pool.check_integrity(owned)
