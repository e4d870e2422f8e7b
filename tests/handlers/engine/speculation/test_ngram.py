"""What followed the last tokens before is guessed again: the longest match first, this sequence before others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.scheduler import Chunk
from handlers.engine.sequence import Sequence
from handlers.engine.speculation.drafter import Wish
from handlers.engine.speculation.ngram import NgramDrafter, NgramIndex
from handlers.requests import SamplingParams


def sequence_of(token_ids: list[int], name: str = "a", num_prompt_tokens: int | None = None) -> Sequence:
    prompt = token_ids[: num_prompt_tokens or len(token_ids)]
    sequence = Sequence(name, list(prompt), SamplingParams(max_tokens=50), seed=0, max_len=1000, end_token_ids=frozenset())
    sequence.token_ids += token_ids[len(prompt) :]
    return sequence


def guess(drafter: NgramDrafter, sequence: Sequence, num_tokens: int = 4) -> list[int]:
    chunk = Chunk(sequence.id, len(sequence.token_ids) - 1, (sequence.token_ids[-1],), [0], samples=True)
    return drafter.draft([Wish(sequence, chunk, num_tokens)])[sequence.id]


def test_what_followed_before_is_guessed():
    assert guess(NgramDrafter(), sequence_of([1, 2, 3, 4, 5, 6, 1, 2])) == [3, 4, 5, 6]


def test_the_longest_match_goes_before_a_later_one():
    assert guess(NgramDrafter(), sequence_of([1, 2, 3, 7, 9, 3, 8, 1, 2, 3]), 1) == [7]


def test_of_equal_matches_the_latest_counts():
    assert guess(NgramDrafter(), sequence_of([1, 2, 7, 1, 2, 8, 1, 2]), 1) == [8]


def test_a_repetition_goes_on():
    assert guess(NgramDrafter(), sequence_of([9, 1, 2, 1, 2]), 5) == [1, 2, 1, 2, 1]


def test_nothing_is_guessed_after_what_never_came_before():
    assert guess(NgramDrafter(), sequence_of([1, 2, 3])) == []


def test_what_others_have_generated_is_remembered_with_the_end_of_their_prompts():
    drafter = NgramDrafter()
    drafter.forget(sequence_of([*range(10, 20), 1, 2, 3, 4, 5], num_prompt_tokens=12))
    assert guess(drafter, sequence_of([9, 3, 4], "b")) == [5]
    assert guess(drafter, sequence_of([9, 1, 2], "c")) == [3, 4, 5]  # so answers begin
    assert guess(drafter, sequence_of([9, 14], "d")) == []


def test_no_guess_goes_on_from_one_answer_into_the_next():
    drafter = NgramDrafter()
    for name in "ab":
        drafter.forget(sequence_of([0, 3, 4, 5], name, num_prompt_tokens=1))
    assert guess(drafter, sequence_of([3, 4], "c"), 8) == [5]


def test_old_answers_are_forgotten(monkeypatch):
    monkeypatch.setattr("handlers.engine.speculation.ngram._RECENT_TOKENS", 3)
    drafter = NgramDrafter()
    answers = [[0, 10 * number + 1, 10 * number + 2, 10 * number + 3] for number in range(3)]
    for answer in answers:
        drafter.forget(sequence_of(answer, num_prompt_tokens=1))
    assert [guess(drafter, sequence_of([answer[1]], str(answer[1])), 1) for answer in answers] == [[], [12], [22]]


def test_a_long_prompt_is_read_in_the_course_of_some_steps(monkeypatch):
    monkeypatch.setattr("handlers.engine.speculation.ngram._STEP_TOKENS", 3)
    drafter, sequence = NgramDrafter(), sequence_of([1, 2, 3, 4, 5, 6, 1, 2])
    assert [guess(drafter, sequence) for _ in range(3)] == [[], [], [3, 4, 5, 6]]


@given(st.lists(st.integers(0, 3), min_size=2, max_size=60), st.integers(1, 8), st.lists(st.integers(1, 59), max_size=4))
def test_guesses_are_what_a_search_finds(token_ids, num_tokens, cuts):
    drafter = NgramDrafter()
    for cut in sorted(cut for cut in cuts if cut < len(token_ids)):  # it grows from step to step, and is read on
        guess(drafter, sequence_of(token_ids[:cut]))
    assert guess(drafter, sequence_of(token_ids), num_tokens) == search(token_ids, num_tokens)


def search(token_ids: list[int], num_tokens: int) -> list[int]:
    """The slow way: look for the latest earlier occurrence of the longest suffix."""
    for size in (4, 3, 2, 1):
        for end in range(len(token_ids) - 1, size - 1, -1):
            if size <= end and token_ids[end - size : end] == token_ids[-size:]:
                text = list(token_ids)
                for index in range(num_tokens):
                    text.append(text[end + index])
                return text[len(token_ids) :][: 4 if size == 1 else num_tokens]
    return []


def test_an_index_says_how_long_it_is():
    index = NgramIndex()
    index.extend([1, 2, 3])
    assert len(index) == 3
