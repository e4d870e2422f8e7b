"""What a line means."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.chat.commands import USAGE, Action, Instruct, Load, Save, Say, Set, parse
from archiver.errors import ArchiverError, UsageError


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("Hello /there", Say("Hello /there")),
        (" /help", Say(" /help")),
        ("//help", Say("/help")),
        ("/help", Action.HELP),
        ("/quit ", Action.QUIT),
        ("/system You are  brief.", Instruct("You are  brief.")),
        ("/system one\ntwo", Instruct("one\ntwo")),
        ("/system", Instruct("")),
        ("/set temperature 0.2", Set("temperature", 0.2)),
        ("/set  max_tokens   7", Set("max_tokens", 7)),
        ("/set stop The End", Set("stop", "The End")),
        ("/set temperature", Set("temperature", None)),
        ("/save a b.json", Save(Path("a b.json"))),
        ("/load ~/x", Load(Path.home() / "x")),
    ],
)
def test_lines_and_what_they_mean(text, command):
    assert parse(text) == command


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("/sytem x", "no command /sytem: did you mean 'system'?"),
        ("/xyz", "no command /xyz: there are system, set, show"),
        ("/", "no command /: there are system"),
        ("/reset now", "/reset takes nothing after it"),
        ("/save", "/save FILE: say which file"),
        ("/set", "no parameter '': there are temperature"),
        ("/set tmperature 1", "no parameter 'tmperature': did you mean 'temperature'?"),
    ],
)
def test_a_mistake_is_named(text, complaint):
    with pytest.raises(UsageError) as error:
        parse(text)
    assert str(error.value).startswith(complaint)


def test_help_lists_every_action():
    assert {f"/{action.value}" for action in Action} <= USAGE.keys()


@pytest.mark.parametrize("usage", [usage for usage in USAGE if usage.startswith("/")])
def test_what_help_lists_is_a_command(usage):
    try:
        assert parse(usage) != Say(usage)
    except UsageError as error:  # about its argument
        assert str(error).startswith(("NAME", "no parameter 'NAME'"))


@given(st.text())
def test_any_line_is_a_message_a_command_or_one_line_of_complaint(text):
    try:
        command = parse(text)
    except ArchiverError as error:
        assert text.startswith("/")
        assert "\n" not in str(error)
    else:
        assert text.startswith("/") or command == Say(text)


@given(st.text())
def test_whatever_begins_with_a_slash_can_be_said(text):
    assert parse(f"//{text}") == Say(f"/{text}")
