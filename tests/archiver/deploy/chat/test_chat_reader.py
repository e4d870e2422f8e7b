"""Lines into messages, and the history of lines."""

from __future__ import annotations

import stat
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.chat.reader import history_file, kept_history, read_message


def typed(*lines: str) -> Callable[[str], str]:
    """Return what reads these lines, and then ends."""
    rest = iter(lines)

    def read(prompt: str) -> str:
        try:
            return next(rest)
        except StopIteration:
            raise EOFError from None

    return read


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["one"], "one"),
        ([""], ""),
        (["one\\", "two\\", "three", "four"], "one\ntwo\nthree"),
        (['"""one', "two", 'three"""', "four"], "one\ntwo\nthree"),
        (['"""', "one", '""" '], "\none\n"),
        (['"""one"""', "two"], "one"),
        (['""""""'], ""),
        (["one\\"], "one"),
        (['"""one', "two"], "one\ntwo"),
        (['say """', "two"], 'say """'),
    ],
)
def test_lines_that_belong_together_are_one_message(lines, message):
    assert read_message(typed(*lines)) == message


def test_further_lines_have_their_own_prompt():
    asked = []

    def read(prompt: str) -> str:
        asked.append(prompt)
        return "x\\" if len(asked) < 3 else "x"

    read_message(read, "> ", ". ")
    assert asked == ["> ", ". ", ". "]


def test_nothing_left_is_the_end():
    with pytest.raises(EOFError):
        read_message(typed())


@given(st.lists(st.text(st.characters(exclude_characters="\n\r")), min_size=1))
def test_no_line_is_lost(lines):
    read, messages = typed(*lines), []
    with pytest.raises(EOFError):
        while True:
            messages.append(read_message(read))
    kept = "\n".join(messages)
    assert [char for char in kept if char not in '\\"\n '] == [char for line in lines for char in line if char not in '\\" ']


def test_history_lies_where_state_belongs_and_is_nobody_elses_business(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = history_file()
    assert path == tmp_path / "state" / "marquee" / "chat_history"
    with kept_history(path):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_file() == tmp_path / ".local" / "state" / "marquee" / "chat_history"


def test_a_history_that_cannot_be_kept_is_no_reason_not_to_chat(tmp_path):
    (tmp_path / "file").write_text("")
    with kept_history(tmp_path / "file" / "chat_history"):
        pass
