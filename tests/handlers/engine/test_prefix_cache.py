"""What sequences share: full blocks of the same beginning, computed once, and never the last token."""

import pytest

from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.sequence import Sequence
from handlers.requests import SamplingParams

PROMPT = list(range(10))


def make_sequence(name: str, token_ids: list[int], arrival: int = 0) -> Sequence:
    sequence = Sequence(name, list(token_ids), SamplingParams(max_tokens=5), seed=0, max_len=100, end_token_ids=frozenset())
    sequence.rank = (0, arrival)
    return sequence


@pytest.fixture
def cache() -> PrefixCache:
    return PrefixCache(num_blocks=8, block_tokens=4)


def begin(cache: PrefixCache, name: str, token_ids: list[int], arrival: int = 0) -> Sequence:
    sequence = make_sequence(name, token_ids, arrival)
    assert cache.begin(sequence, reserve=0)
    return sequence


def compute(cache: PrefixCache, sequence: Sequence) -> None:
    cache.advance(sequence, len(sequence.token_ids))


def test_a_sequence_has_blocks_for_all_its_tokens(cache):
    sequence = begin(cache, "a", PROMPT)
    assert (len(sequence.block_ids), sequence.num_computed) == (3, 0)
    cache.check_integrity([sequence])


def test_full_blocks_are_shared_while_their_owner_runs_and_after(cache):
    first = begin(cache, "first", PROMPT)
    compute(cache, first)
    second = begin(cache, "second", [*PROMPT[:9], 99])
    assert second.num_computed == 8
    assert second.block_ids[:2] == first.block_ids[:2]
    assert second.block_ids[2] != first.block_ids[2]
    cache.check_integrity([first, second])
    for sequence in (first, second):
        cache.release(sequence)
    assert (cache.num_owned, first.block_ids, first.num_computed) == (0, [], 0)
    assert begin(cache, "third", PROMPT).num_computed == 8


def test_without_caching_only_those_that_run_together_share():
    cache = PrefixCache(num_blocks=8, block_tokens=4, keeps_unused=False)
    first = begin(cache, "first", PROMPT)
    compute(cache, first)
    second = begin(cache, "second", PROMPT)
    assert second.num_computed == 8
    for sequence in (first, second):
        cache.release(sequence)
    assert begin(cache, "third", PROMPT).num_computed == 0


def test_the_last_token_is_computed_even_where_all_is_known(cache):
    first = begin(cache, "first", PROMPT[:8])
    compute(cache, first)
    second = begin(cache, "second", PROMPT[:8])
    assert second.num_computed == 4
    compute(cache, second)
    cache.check_integrity([first, second])


def test_equal_blocks_after_different_beginnings_are_different(cache):
    first = begin(cache, "first", [1, 1, 1, 1, 7, 7, 7, 7, 0])
    compute(cache, first)
    assert begin(cache, "second", [2, 2, 2, 2, 7, 7, 7, 7, 0]).num_computed == 0


def test_generated_tokens_are_found_by_the_next_turn(cache):
    first = begin(cache, "first", PROMPT)
    compute(cache, first)
    for token_id in (50, 51, 52):
        first.append(token_id)
        assert cache.grow(first)
        compute(cache, first)
    cache.release(first)
    assert begin(cache, "next turn", [*PROMPT, 50, 51, 52, 60]).num_computed == 12


def test_nothing_is_given_where_the_reserve_would_be_touched(cache):
    first = begin(cache, "first", PROMPT)
    second = make_sequence("second", [*range(20, 34)])  # 4 of the 5 blocks that are left
    assert not cache.begin(second, reserve=2)
    assert second.block_ids == []
    assert cache.begin(second, reserve=1)
    cache.check_integrity([first, second])


def test_blocks_that_are_shared_out_of_the_cache_are_not_available_twice(cache):
    first = begin(cache, "first", [*range(25)])  # 7 of 8 blocks, 6 of which stay cached
    compute(cache, first)
    cache.release(first)
    assert not cache.begin(make_sequence("too long", [*range(33)]), reserve=0)
    assert cache.begin(make_sequence("second", [*range(25), *range(7)]), reserve=0)


def test_growing_stops_where_no_block_is_left():
    cache = PrefixCache(num_blocks=2, block_tokens=2)
    sequence = begin(cache, "a", [1, 2, 3])
    compute(cache, sequence)
    sequence.append(4)
    assert cache.grow(sequence)
    sequence.append(5)
    assert not cache.grow(sequence)
    cache.check_integrity([sequence])


def test_the_end_of_a_beginning_is_evicted_before_its_start(cache):
    first = begin(cache, "first", [*range(16)])
    compute(cache, first)
    cache.release(first)
    begin(cache, "second", [*range(100, 124)])  # 6 blocks: the 4 free ones and 2 of the cached ones
    assert begin(cache, "third", [*range(7)]).num_computed == 4


def test_a_block_on_its_way_is_waited_for_by_those_behind(cache):
    leader = begin(cache, "leader", PROMPT, arrival=2)
    behind, ahead, other = make_sequence("behind", PROMPT, 3), make_sequence("ahead", PROMPT, 1), make_sequence("other", [7] * 9, 3)
    assert cache.is_coming(behind)
    assert not cache.is_coming(ahead), "whoever goes first does not wait for those behind"
    assert not cache.is_coming(other)
    cache.advance(leader, 5)
    assert cache.is_coming(behind), "the second block is still on its way"
    cache.advance(leader, 8)
    assert not cache.is_coming(behind)


def test_nobody_waits_for_a_leader_that_has_left(cache):
    leader = begin(cache, "leader", PROMPT, arrival=1)
    follower = make_sequence("follower", PROMPT, 2)
    assert cache.is_coming(follower)
    cache.release(leader)
    assert not cache.is_coming(follower)
    cache.check_integrity([])


def test_a_follower_does_not_wait_for_a_block_that_it_computes_itself(cache):
    leader = begin(cache, "leader", PROMPT[:8], arrival=1)
    follower = make_sequence("follower", PROMPT[:8], 2)
    cache.advance(leader, 4)
    assert not cache.is_coming(follower), "the second block holds its last token"


def test_what_is_distrusted_is_not_found_again(cache):
    first = begin(cache, "first", PROMPT)
    compute(cache, first)
    cache.distrust(first)
    assert begin(cache, "second", PROMPT).num_computed == 0
    cache.release(first)
    assert cache.num_owned == 3


def test_clearing_forgets_everything(cache):
    first = begin(cache, "first", PROMPT)
    cache.advance(first, 8)
    cache.clear()
    cache.check_integrity([])
    assert not cache.is_coming(make_sequence("second", PROMPT, 1))
    assert begin(cache, "third", PROMPT).num_computed == 0
