"""Guesses get longer while they are right, shorter when they are not, and stop where they hardly ever are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.speculation.pace import DraftPace


def test_what_is_right_makes_the_next_guess_longer_up_to_the_most():
    pace, lengths = DraftPace(max_tokens=12), []
    for generated in range(4):
        lengths.append(pace.num_tokens(generated))
        pace.note(lengths[-1], lengths[-1], generated)
    assert lengths == [4, 8, 12, 12]


def test_what_is_wrong_makes_it_as_long_as_what_was_right_and_one_more():
    pace = DraftPace(max_tokens=8)
    pace.note(8, 3, 10)
    assert pace.num_tokens(10) == 4


def test_a_sequence_whose_guesses_are_wrong_is_left_alone_for_longer_and_longer():
    pace, pauses, generated = DraftPace(max_tokens=4), [], 0
    for _ in range(3):
        while pace.num_tokens(generated):
            pace.note(pace.num_tokens(generated), 0, generated)
        resumed = next(number for number in range(generated, generated + 1000) if pace.num_tokens(number))
        pauses.append(resumed - generated)
        generated = resumed
    assert pauses == [16, 32, 64]


def test_after_a_pause_in_vain_and_a_good_trial_pauses_are_short_again():
    pace = DraftPace(max_tokens=4)
    while pace.num_tokens(0):
        pace.note(2, 0, 0)
    for _ in range(20):
        pace.note(2, 2, 100)
    while pace.num_tokens(100):
        pace.note(2, 0, 100)
    assert pace.num_tokens(116) and not pace.num_tokens(115)


@given(st.integers(1, 16), st.lists(st.floats(0, 1), max_size=60))
def test_a_guess_is_never_longer_than_allowed(max_tokens, shares):
    pace = DraftPace(max_tokens)
    for generated, share in enumerate(shares):
        num_tokens = pace.num_tokens(generated)
        assert 0 <= num_tokens <= max_tokens
        if num_tokens:
            pace.note(num_tokens, int(share * num_tokens), generated)
