"""The first stop string ends the text, whatever the pieces that the text comes in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.text.stop_matcher import StopMatcher

texts = st.text("abc", max_size=20)
stop_strings = st.lists(st.text("abc", min_size=1, max_size=4), max_size=4)


def until_stop(text: str, stop: list[str]) -> tuple[str, bool]:
    """The oracle: read on until the text ends with a stop string, and cut off the longest that it ends with."""
    for end in range(len(text) + 1):
        if matches := [string for string in stop if text[:end].endswith(string)]:
            return text[: end - max(map(len, matches))], True
    return text, False


@given(text=texts, stop=stop_strings, data=st.data())
def test_the_cutting_does_not_matter(text: str, stop: list[str], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    matcher = StopMatcher(stop)
    got = "".join(matcher.push(piece) for piece in pieces) + matcher.flush()

    assert (got, matcher.is_stopped) == until_stop(text, stop)


@given(text=texts, stop=stop_strings)
def test_only_a_possible_beginning_is_held_back(text: str, stop: list[str]) -> None:
    matcher = StopMatcher(stop)
    sent = "".join(map(matcher.push, text))

    if not matcher.is_stopped:
        held = text[len(sent) :]
        assert held == "" or any(string.startswith(held) for string in stop)


@pytest.mark.parametrize(
    ("stop", "pieces", "want"),
    [
        (["END"], ["a E", "N", "D b"], "a "),
        (["END"], ["a E", "N", "o"], "a ENo"),
        (["aab"], ["a", "a", "a", "b"], "a"),
        (["b", "ab"], ["xab"], "x"),
        (["abc", "b"], ["xabc"], "xa"),
        (["\n\n"], ["\n", "\n", "x"], ""),
        (["é"], ["caf", "é"], "caf"),
    ],
)
def test_examples(stop: list[str], pieces: list[str], want: str) -> None:
    matcher = StopMatcher(stop)

    assert "".join(map(matcher.push, pieces)) + matcher.flush() == want


def test_nothing_comes_after_a_match() -> None:
    matcher = StopMatcher(["x"])

    assert (matcher.push("ax"), matcher.push("b"), matcher.flush()) == ("a", "", "")


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert StopMatcher([]).push("abc") == "abc"
