"""A conversation is a value: what is asked, answered, taken back and written to a file."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.deploy.chat.conversation import Conversation, Message
from archiver.errors import UsageError

BRIEF = Conversation().instruct("Be brief.").set("temperature", 0.5)
TALK = BRIEF.ask("one").answer("1").ask("two").answer("2", is_partial=True)


def test_a_request_has_the_system_prompt_first_and_the_settings():
    body = TALK.ask("three").body("bot")
    assert [(message["role"], message["content"]) for message in body.pop("messages")] == [
        ("system", "Be brief."),
        ("user", "one"),
        ("assistant", "1"),
        ("user", "two"),
        ("assistant", "2"),
        ("user", "three"),
    ]
    assert body == {"model": "bot", "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.5}
    assert [message["role"] for message in Conversation().ask("x").body("bot")["messages"]] == ["user"]


def test_the_last_question_is_taken_back_or_asked_again():
    assert TALK.undo() == BRIEF.ask("one").answer("1")
    assert TALK.retry() == BRIEF.ask("one").answer("1").ask("two")
    assert TALK.undo().undo() == BRIEF == TALK.reset()
    for take_back in (BRIEF.undo, BRIEF.retry):
        with pytest.raises(UsageError, match="nothing has been asked yet"):
            take_back()


def test_a_parameter_goes_back_to_the_server():
    assert BRIEF.set("temperature", None).settings == {}


SETTINGS = st.dictionaries(st.sampled_from(["temperature", "stop"]), st.floats(0, 1) | st.text() | st.lists(st.text()) | st.integers())
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["user", "assistant"]), st.text(), st.booleans())).map(tuple)


@given(st.builds(Conversation, st.text(), MESSAGES, SETTINGS))
def test_what_is_saved_is_what_is_loaded(tmp_path_factory, conversation):
    path = tmp_path_factory.mktemp("saved") / "chat.json"
    conversation.save(path)
    assert Conversation.load(path) == conversation


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is no saved conversation: Invalid JSON"),
        (json.dumps({"messages": [{"role": "pirate", "content": "arr"}]}), "messages.0.role: Input should be 'user' or 'assistant'"),
        (json.dumps({"messages": [{"role": "user"}]}), "messages.0.content: Field required"),
        ("[]", "is no saved conversation: Input should be"),
    ],
)
def test_another_file_is_refused_with_what_is_wrong(tmp_path, content, complaint):
    path = tmp_path / "chat.json"
    path.write_text(content)
    with pytest.raises(UsageError) as error:
        Conversation.load(path)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_is_named(tmp_path):
    for use in (BRIEF.save, Conversation.load):
        with pytest.raises(UsageError, match=r"nowhere/chat.json: No such file or directory"):
            use(tmp_path / "nowhere" / "chat.json")
