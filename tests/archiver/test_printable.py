"""What comes from elsewhere must not be able to act on the terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from archiver.printable import printable

ANY_TEXT = st.text(st.characters(exclude_categories=()))  # half surrogate pairs too, which JSON can carry


@given(ANY_TEXT)
def test_no_control_character_but_newline_and_tab_gets_through_and_all_can_be_encoded(text):
    shown = printable(text)
    assert not [char for char in shown if unicodedata.category(char) == "Cc" and char not in "\n\t"]
    shown.encode()


@given(st.text(st.characters(exclude_categories=("Cc", "Cs"))))
def test_everything_else_is_shown_as_it_is(text):
    assert printable(text) == text


@given(ANY_TEXT, ANY_TEXT)
def test_a_sequence_that_comes_in_two_pieces_is_as_harmless_as_a_whole_one(first, second):
    assert printable(first) + printable(second) == printable(first + second)


def test_what_is_left_of_an_escape_sequence_is_text():
    assert printable("\x1b]0;owned\x07\x1b[2J\x9b31mred\r\n\ttab") == "]0;owned[2J31mred\n\ttab"
