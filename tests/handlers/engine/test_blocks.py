"""The block pool: every block free, cached or owned; what is cached is found, and evicted in the order of its last use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.blocks import BlockPool


def test_a_block_is_owned_until_its_last_owner_frees_it():
    pool = BlockPool(2)
    block = pool.allocate()
    pool.share(block)
    pool.free(block)
    assert (pool.num_owned, pool.num_available) == (1, 1)
    pool.free(block)
    assert (pool.num_owned, pool.num_available) == (0, 2)


def test_allocating_from_an_empty_pool_raises():
    pool = BlockPool(1)
    pool.allocate()
    with pytest.raises(IndexError, match="no KV block"):
        pool.allocate()


def test_a_registered_block_outlives_its_owner_until_room_is_needed():
    pool = BlockPool(2)
    first = pool.allocate()
    pool.register(first, b"first")
    pool.free(first)
    assert pool.find(b"first") == first
    assert pool.is_cached(first)
    assert pool.allocate() != first, "free blocks go before cached ones"
    assert pool.find(b"first") == first
    assert pool.allocate() == first
    assert pool.find(b"first") is None


def test_the_least_recently_used_block_is_evicted_first():
    pool = BlockPool(3)
    blocks = [pool.allocate() for _ in range(3)]
    for block in blocks:
        pool.register(block, bytes([block]))
        pool.free(block)
    pool.share(blocks[0])
    pool.free(blocks[0])
    assert [pool.allocate() for _ in range(3)] == [blocks[1], blocks[2], blocks[0]]


def test_without_caching_a_block_is_found_only_while_it_is_owned():
    pool = BlockPool(1, keeps_unused=False)
    block = pool.allocate()
    pool.register(block, b"key")
    assert pool.find(b"key") == block
    pool.free(block)
    assert pool.find(b"key") is None
    pool.check_integrity([])


def test_of_two_equal_blocks_one_is_found_and_the_other_stays_private():
    pool = BlockPool(2)
    first, second = pool.allocate(), pool.allocate()
    pool.register(first, b"key")
    pool.register(second, b"key")
    assert pool.find(b"key") == first
    pool.free(second)
    assert not pool.is_cached(second)
    pool.check_integrity([first])


def test_what_is_unregistered_is_not_found_again():
    pool = BlockPool(1)
    block = pool.allocate()
    pool.register(block, b"key")
    pool.unregister(block)
    assert pool.find(b"key") is None
    pool.free(block)
    assert not pool.is_cached(block)
    pool.check_integrity([])


@pytest.mark.parametrize(("owned", "problem"), [([0], "partition"), ([0, 1, 1], "reference counts"), ([0, 1, 2], "partition")])
def test_the_integrity_check_finds_lost_and_stolen_blocks(owned, problem):
    pool = BlockPool(3)
    assert {pool.allocate(), pool.allocate()} == {0, 1}
    pool.check_integrity([0, 1])
    with pytest.raises(RuntimeError, match=problem):
        pool.check_integrity(owned)


OPERATIONS = st.lists(st.tuples(st.sampled_from(["allocate", "share", "free", "register", "unregister"]), st.integers(0, 7)), max_size=60)


@given(OPERATIONS, st.booleans())
def test_any_order_of_operations_keeps_the_pool_intact(operations, keeps_unused):
    pool, owned = BlockPool(5, keeps_unused=keeps_unused), []
    for verb, number in operations:
        key = bytes([number])
        if verb == "allocate" and pool.num_available:
            block = pool.allocate()
            assert block not in owned
            assert pool.key(block) is None
            owned.append(block)
        elif verb == "share" and (block := pool.find(key)) is not None:
            pool.share(block)
            owned.append(block)
        elif verb == "free" and owned:
            pool.free(owned.pop(number % len(owned)))
        elif verb == "register" and owned and pool.key(owned[-1]) is None:
            pool.register(owned[-1], key)
            assert pool.find(key) is not None
        elif verb == "unregister" and owned:
            pool.unregister(owned[number % len(owned)])
        pool.check_integrity(owned)
    assert pool.num_owned == len(set(owned))
