"""What is planned when: decodes always, prompts within the budget, in the order of rank, and who gives way when blocks run out."""

from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.scheduler import Chunk, Scheduler
from handlers.engine.sequence import Sequence
from handlers.requests import SamplingParams


class Rig:
    """A scheduler and its sequences; each step is computed as an engine would. Prompts have no tokens in common unless given."""

    def __init__(self, num_blocks=100, max_running=8, prefill_chunk_tokens=8) -> None:
        self.cache = PrefixCache(num_blocks, block_tokens=4)
        self.scheduler = Scheduler(self.cache, max_running=max_running, prefill_chunk_tokens=prefill_chunk_tokens)
        self.sequences: dict[str, Sequence] = {}

    def add(self, name: str, prompt: int | list[int], priority: int = 0, deadline_s: float = float("inf")) -> Sequence:
        token_ids = [1000 * len(self.sequences) + i for i in range(prompt)] if isinstance(prompt, int) else list(prompt)
        params = SamplingParams(max_tokens=50)
        sequence = Sequence(name, token_ids, params, 0, 10_000, frozenset(), priority=priority, deadline_s=deadline_s)
        self.sequences[name] = sequence
        self.scheduler.add(sequence)
        return sequence

    def step(self, now_s: float = 0.0) -> list[tuple[str, int, int, bool]]:
        """Plan a step and compute it; return (sequence, start, number of tokens, samples) of each chunk."""
        plan = self.scheduler.schedule(now_s)
        self.scheduler.check_integrity()
        for chunk in plan.chunks:
            sequence = self.sequences[chunk.sequence_id]
            self.cache.advance(sequence, chunk.end)
            if chunk.samples:
                sequence.append(-len(sequence.token_ids))
        self.scheduler.check_integrity()
        return [(chunk.sequence_id, chunk.start, len(chunk.token_ids), chunk.samples) for chunk in plan.chunks]

    def names_in_step(self) -> list[str]:
        return [name for name, *_ in self.step()]

    def remove(self, name: str) -> None:
        self.scheduler.remove(self.sequences[name])


def test_nothing_to_do_is_an_empty_plan():
    assert Rig().scheduler.schedule(0.0).chunks == ()


def test_a_plan_is_plain_data():
    rig = Rig()
    rig.add("a", [5, 6, 7])
    assert rig.scheduler.schedule(0.0).chunks == (Chunk("a", start=0, token_ids=(5, 6, 7), block_ids=[0], samples=True),)


def test_a_long_prompt_is_read_in_chunks_beside_a_running_sequence():
    rig = Rig(prefill_chunk_tokens=4)
    rig.add("short", 2)
    assert rig.step() == [("short", 0, 2, True)]
    rig.add("long", 10)
    assert rig.step() == [("short", 2, 1, True), ("long", 0, 4, False)]
    assert rig.step() == [("short", 3, 1, True), ("long", 4, 4, False)]
    assert rig.step() == [("short", 4, 1, True), ("long", 8, 2, True)]
    assert rig.step() == [("short", 5, 1, True), ("long", 10, 1, True)]


def test_the_oldest_prompt_has_the_budget_first_and_the_next_takes_the_rest():
    rig = Rig(prefill_chunk_tokens=6)
    for name, num_tokens in (("a", 8), ("b", 3), ("c", 3)):
        rig.add(name, num_tokens)
    assert rig.step() == [("a", 0, 6, False)]
    assert rig.step() == [("a", 6, 2, True), ("b", 0, 3, True), ("c", 0, 1, False)]
    assert rig.step() == [("a", 8, 1, True), ("b", 3, 1, True), ("c", 1, 2, True)]


def test_no_more_than_max_running_run_and_the_others_wait_in_order():
    rig = Rig(max_running=1)
    for name in "abc":
        rig.add(name, 2)
    assert rig.names_in_step() == ["a"]
    assert (rig.scheduler.num_running, rig.scheduler.num_waiting) == (1, 2)
    rig.remove("b")
    rig.remove("a")
    assert rig.step() == [("c", 0, 2, True)]


def test_priority_goes_before_arrival():
    rig = Rig(max_running=1)
    rig.add("late and lowly", 2, priority=5)
    rig.add("first", 2)
    rig.add("urgent", 2, priority=-1)
    order = []
    for _ in range(3):
        order += rig.names_in_step()
        rig.remove(order[-1])
    assert order == ["urgent", "first", "late and lowly"]


def test_an_urgent_prompt_starts_with_the_budget_that_those_leave_that_have_begun_and_then_goes_first():
    rig = Rig(prefill_chunk_tokens=6)
    rig.add("long", 8)
    rig.step()
    rig.add("urgent", 10, priority=-1)
    assert rig.step() == [("long", 6, 2, True), ("urgent", 0, 4, False)]
    rig.add("late", 10)
    assert rig.step() == [("long", 8, 1, True), ("urgent", 4, 6, True)]


def test_a_sequence_starts_only_with_a_block_to_spare_for_each_running_one():
    rig = Rig(num_blocks=4)
    rig.add("a", 4)
    rig.add("b", 8)
    rig.add("c", 4)
    assert rig.names_in_step() == ["a", "b"]
    assert rig.scheduler.num_waiting == 1, "the last block is for those that run"
    rig.remove("b")
    assert rig.names_in_step() == ["a", "c"]


def test_the_first_in_the_queue_is_not_overtaken_by_smaller_ones():
    rig = Rig(num_blocks=4)
    rig.add("running", 4)
    rig.step()
    rig.add("big", 16)
    rig.add("small", 1)
    assert rig.names_in_step() == ["running"]


def test_equal_prompts_are_computed_once_and_share_their_blocks():
    rig = Rig(prefill_chunk_tokens=100)
    prompt = list(range(10))
    for name in "abc":
        rig.add(name, prompt)
    rig.add("other", 4)
    assert rig.step() == [("a", 0, 10, True), ("other", 0, 4, True)]
    assert rig.step() == [("a", 10, 1, True), ("other", 4, 1, True), ("b", 8, 2, True), ("c", 8, 2, True)]
    blocks = [rig.sequences[name].block_ids for name in "abc"]
    assert blocks[0][:2] == blocks[1][:2] == blocks[2][:2]
    assert len({block_ids[2] for block_ids in blocks}) == 3
    assert (rig.scheduler.queried_tokens, rig.scheduler.cached_tokens) == (34, 16)


def test_a_follower_goes_on_alone_when_its_leader_leaves():
    rig = Rig(prefill_chunk_tokens=8)
    prompt = list(range(20))
    rig.add("leader", prompt)
    rig.add("follower", prompt)
    assert rig.step() == [("leader", 0, 8, False)]
    rig.remove("leader")
    assert rig.step() == [("follower", 8, 8, False)], "with what the leader left"


def test_the_last_in_rank_is_preempted_and_computed_again_at_its_old_place():
    rig = Rig(num_blocks=4)
    rig.add("a", 7)
    rig.add("b", 3)
    rig.step()  # 3 of 4 blocks
    while not rig.scheduler.num_preemptions:
        rig.step()
    victim = rig.sequences["b"]
    assert (victim.block_ids, victim.num_computed) == ([], 0)
    num_tokens = len(victim.token_ids)
    rig.add("c", 3)
    rig.remove("a")
    assert rig.step()[0][0] == "b", "before those that came later"
    assert victim.token_ids[:num_tokens] == victim.token_ids[:-1]


def test_preemption_spares_the_urgent():
    rig = Rig(num_blocks=4)
    rig.add("normal", 7)
    rig.step()
    rig.add("urgent", 3, priority=-1)
    while not rig.scheduler.num_preemptions:
        rig.step()
    assert rig.sequences["normal"].block_ids == []
    assert rig.names_in_step() == ["urgent"]


def test_what_a_preempted_sequence_had_computed_is_found_again_while_room_lasts():
    rig = Rig(num_blocks=6, prefill_chunk_tokens=100)
    rig.add("a", 11)
    rig.add("b", 8)
    while not rig.scheduler.num_preemptions:
        rig.step()
    rig.remove("a")
    [(name, start, _, _)] = rig.step()
    assert (name, start) == ("b", 8)


def test_expired_sequences_are_those_that_never_started():
    rig = Rig(max_running=1)
    rig.add("running", 4, deadline_s=1.0)
    rig.step(now_s=0.5)
    late = rig.add("late", 4, deadline_s=2.0)
    rig.add("patient", 4)
    assert rig.scheduler.next_deadline_s() == 2.0
    assert rig.scheduler.expired(1.9) == []
    assert rig.scheduler.expired(2.0) == [late]
    assert rig.sequences["running"].started_s == 0.5


def test_a_preempted_sequence_does_not_expire():
    rig = Rig(num_blocks=4)
    rig.add("a", 7)
    rig.add("b", 3, deadline_s=1.0)
    while not rig.scheduler.num_preemptions:
        rig.step()
    assert rig.scheduler.expired(2.0) == []
    assert rig.scheduler.next_deadline_s() == float("inf")


def test_after_a_restart_everybody_waits_in_the_old_order_with_nothing_computed():
    rig = Rig()
    prompt = list(range(9))
    rig.add("a", prompt)
    rig.step()
    rig.add("b", prompt)
    rig.add("urgent", 3, priority=-1)
    rig.scheduler.restart(rig.sequences.values())
    rig.scheduler.check_integrity()
    assert (rig.scheduler.num_running, rig.scheduler.num_waiting) == (0, 3)
    assert rig.step() == [("urgent", 0, 3, True), ("a", 0, 5, False)]


def test_no_block_is_spared_for_who_has_all_it_can_need():
    rig = Rig(num_blocks=2)
    first = rig.add("first", 3)
    first.max_len = 5  # its last token is never computed
    rig.add("second", 3)
    assert rig.names_in_step() == ["first", "second"]
