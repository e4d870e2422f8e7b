"""Prompts go where their beginning was seen, and nobody is swamped because of it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.process.router import Router

prompts = st.lists(st.integers(0, 3), min_size=1, max_size=60)
loads = st.dictionaries(st.integers(0, 5), st.integers(0, 20), min_size=1)
SYSTEM = list(range(160))


@given(st.lists(st.tuples(prompts, loads), max_size=30), st.integers(0, 8))
def test_a_choice_is_never_much_more_loaded_than_the_best(turns: list[tuple[list[int], dict[int, int]]], slack: int) -> None:
    router = Router(slack)
    for prompt, replicas in turns:
        assert replicas[router.choose(prompt, replicas)] <= min(replicas.values()) + slack


@given(prompts, loads, st.lists(prompts, max_size=5))
def test_equal_prompts_go_together(prompt: list[int], replicas: dict[int, int], others: list[list[int]]) -> None:
    router = Router(slack=100)
    chosen = router.choose(prompt, replicas)
    for other in others:
        router.choose([9, *other], replicas)
    assert router.choose(list(prompt), replicas) == chosen


def test_unknown_prompts_go_to_the_least_loaded() -> None:
    router, replicas = Router(), {0: 0, 1: 0, 2: 0}
    for index in range(30):
        replicas[router.choose([index, 1, 2], replicas)] += 1
    assert set(replicas.values()) == {10}


def test_the_longest_known_beginning_wins() -> None:
    router = Router()
    router.choose(SYSTEM + [1] * 64, {0: 0, 1: 9})
    router.choose(SYSTEM + [2] * 64, {0: 9, 1: 0})
    both = {0: 1, 1: 1}
    assert router.choose(SYSTEM + [1] * 64 + [5], both) == 0
    assert router.choose(SYSTEM + [2] * 64 + [5], both) == 1


def test_a_conversation_stays_where_it_began() -> None:
    router = Router()
    replicas = {0: 3, 1: 2, 2: 4}
    history = list(range(50))
    homes = Counter()
    for turn in range(5):
        homes[router.choose(history, replicas)] += 1
        history += [100 + turn] * 40
    assert homes == {1: 5}


def test_a_replica_that_started_afresh_has_no_claim() -> None:
    router = Router()
    assert router.choose(SYSTEM, {0: 0, 1: 1}) == 0
    router.forget(0)
    assert router.choose(SYSTEM, {0: 1, 1: 0}) == 1


def test_what_is_remembered_is_bounded() -> None:
    router = Router()
    for index in range(500):
        router.choose([index] * 2048, {0: 0, 1: 0})
    assert len(router._owners) <= 1 << 15
