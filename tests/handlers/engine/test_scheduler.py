"""What is planned when: decodes always, prompts within the budget, first come first served."""

from handlers.engine.scheduler import Chunk, Scheduler
from handlers.engine.sequence import Sequence
from handlers.requests import SamplingParams


def make_sequence(name: str, num_tokens: int) -> Sequence:
    return Sequence(name, list(range(num_tokens)), SamplingParams(max_tokens=5), seed=0, max_len=num_tokens + 5, end_token_ids=frozenset())


def run_step(scheduler: Scheduler) -> list[tuple[str, int, int, bool]]:
    """Plan a step and advance as the engine would; return (sequence, start, number of tokens, samples) of each chunk."""
    plan = scheduler.schedule()
    by_id = {sequence.id: sequence for sequence in scheduler.running}
    for chunk in plan.chunks:
        by_id[chunk.sequence_id].num_computed = chunk.end
        if chunk.samples:
            by_id[chunk.sequence_id].append(0)
    return [(chunk.sequence_id, chunk.start, len(chunk.token_ids), chunk.samples) for chunk in plan.chunks]


def test_nothing_to_do_is_an_empty_plan():
    assert Scheduler(num_slots=2, prefill_chunk_tokens=8).schedule().chunks == ()


def test_a_plan_is_plain_data():
    scheduler = Scheduler(num_slots=2, prefill_chunk_tokens=8)
    scheduler.add(make_sequence("a", 3))
    assert scheduler.schedule().chunks == (Chunk("a", slot=0, start=0, token_ids=(0, 1, 2), samples=True),)


def test_a_long_prompt_is_read_in_chunks_beside_a_running_sequence():
    scheduler = Scheduler(num_slots=2, prefill_chunk_tokens=4)
    scheduler.add(make_sequence("short", 2))
    assert run_step(scheduler) == [("short", 0, 2, True)]
    scheduler.add(make_sequence("long", 10))
    assert run_step(scheduler) == [("short", 2, 1, True), ("long", 0, 4, False)]
    assert run_step(scheduler) == [("short", 3, 1, True), ("long", 4, 4, False)]
    assert run_step(scheduler) == [("short", 4, 1, True), ("long", 8, 2, True)]
    assert run_step(scheduler) == [("short", 5, 1, True), ("long", 10, 1, True)]


def test_the_oldest_prompt_has_the_budget_first_and_the_next_takes_the_rest():
    scheduler = Scheduler(num_slots=3, prefill_chunk_tokens=6)
    for name, num_tokens in (("a", 8), ("b", 3), ("c", 3)):
        scheduler.add(make_sequence(name, num_tokens))
    assert run_step(scheduler) == [("a", 0, 6, False)]
    assert run_step(scheduler) == [("a", 6, 2, True), ("b", 0, 3, True), ("c", 0, 1, False)]
    assert run_step(scheduler) == [("a", 8, 1, True), ("b", 3, 1, True), ("c", 1, 2, True)]


def test_sequences_wait_for_a_slot_in_order():
    scheduler = Scheduler(num_slots=1, prefill_chunk_tokens=100)
    first, second, third = (make_sequence(name, 2) for name in "abc")
    for sequence in (first, second, third):
        scheduler.add(sequence)
    run_step(scheduler)
    assert (scheduler.running, scheduler.waiting) == ((first,), (second, third))
    scheduler.remove(second)
    scheduler.remove(first)
    assert first.slot is None
    assert run_step(scheduler) == [("c", 0, 2, True)]
    scheduler.check_integrity()
