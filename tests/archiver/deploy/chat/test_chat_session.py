"""A chat, driven without a terminal and without a server."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterable, Sequence
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from archiver.deploy.chat.answer import Answer
from archiver.deploy.chat.commands import Action, Instruct, Load, Save, Say, Set
from archiver.deploy.chat.conversation import Conversation, Message
from archiver.deploy.chat.session import Session
from archiver.deploy.chat.stream import ChatError, Chunk
from archiver.deploy.chat.views import JsonView, PipeView, TerminalView
from archiver.errors import UsageError

HELLO = (Chunk("Hel"), Chunk("lo"), Chunk(finish_reason="stop"), Chunk(num_prompt_tokens=5, num_tokens=2))


class ScriptedModel:
    """Gives prepared answers; an exception among the chunks is raised in its place."""

    def __init__(self, *answers: Sequence[Chunk | BaseException]) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.num_closed = 0
        self._answers = list(answers)

    def stream(self, body: dict[str, Any]) -> Generator[Chunk]:
        self.bodies.append(body)
        try:
            for chunk in self._answers.pop(0):
                if isinstance(chunk, BaseException):
                    raise chunk
                yield chunk
        finally:
            self.num_closed += 1


class RecordingView:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def wait(self) -> None:
        self.told.append("wait")

    def piece(self, text: str) -> None:
        self.told += [text] if text else []

    def end(self, answer: Answer) -> None:
        self.told.append(answer.finish_reason)

    def fail(self, answer: Answer) -> None:
        self.told.append("fail")

    def note(self, text: str) -> None:
        self.told.append(text)

    def rows(self, rows: Iterable[tuple[str, str]]) -> None:
        self.told.append(list(rows))


def session_with(*answers: Sequence[Chunk | BaseException]) -> tuple[Session, ScriptedModel, RecordingView]:
    model, view = ScriptedModel(*answers), RecordingView()
    return Session(model, "bot", view), model, view


def test_an_answer_becomes_part_of_the_next_request():
    session, model, view = session_with(HELLO, HELLO)
    session.carry_out(Say("Hi"))
    session.carry_out(Say("Again"))
    assert view.told == ["wait", "Hel", "lo", "stop"] * 2
    assert [message["content"] for message in model.bodies[1]["messages"]] == ["Hi", "Hello", "Again"]
    assert model.num_closed == 2


def test_what_was_cancelled_stays_as_partial_and_the_answer_is_closed():
    session, model, view = session_with([Chunk("Hel"), KeyboardInterrupt()])
    with pytest.raises(KeyboardInterrupt):
        session.carry_out(Say("Hi"))
    assert session.conversation.messages == (Message("user", "Hi"), Message("assistant", "Hel", is_partial=True))
    assert view.told == ["wait", "Hel", "cancelled"]
    assert model.num_closed == 1


def test_ctrl_c_while_something_is_shown_closes_the_answer_too():
    session, model, view = session_with(HELLO)

    def interrupted(text: str) -> None:
        raise KeyboardInterrupt

    view.piece = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        session.carry_out(Say("Hi"))
    assert model.num_closed == 1


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), ChatError("too hot")])
def test_a_question_without_an_answer_leaves_no_trace(trouble):
    session, _, _ = session_with(HELLO, [trouble])
    session.carry_out(Say("Hi"))
    before = session.conversation
    with pytest.raises(type(trouble)):
        session.carry_out(Say("Well?"))
    assert session.conversation == before


def test_an_answer_that_breaks_off_leaves_no_trace():
    session, _, view = session_with([Chunk("Hel"), ChatError("the engine failed")])
    with pytest.raises(ChatError):
        session.carry_out(Say("Hi"))
    assert session.conversation == Conversation()
    assert view.told == ["wait", "Hel", "fail"]


def test_retry_asks_the_same_again_and_keeps_the_old_answer_if_that_fails():
    session, model, _ = session_with(HELLO, [ChatError("busy")], [Chunk("Hey"), Chunk(finish_reason="stop")])
    session.carry_out(Say("Hi"))
    with pytest.raises(ChatError):
        session.carry_out(Action.RETRY)
    assert session.conversation.messages[-1].content == "Hello"
    session.carry_out(Action.RETRY)
    assert model.bodies[2]["messages"] == model.bodies[0]["messages"]
    assert [message.content for message in session.conversation.messages] == ["Hi", "Hey"]


def test_commands_change_the_conversation_and_say_so(tmp_path):
    session, model, view = session_with(HELLO)
    for command in (Instruct("Be brief."), Set("temperature", 0.5), Set("seed", 1), Set("seed", None)):
        session.carry_out(command)
    session.carry_out(Say("Hi"))
    assert model.bodies[0] | {"messages": [], "stream": 0, "stream_options": 0} == {
        "model": "bot", "messages": [], "stream": 0, "stream_options": 0, "temperature": 0.5,
    }  # fmt: skip
    full = session.conversation
    session.carry_out(Save(tmp_path / "chat.json"))
    session.carry_out(Action.UNDO)
    assert session.conversation.messages == ()
    session.carry_out(Load(tmp_path / "chat.json"))
    assert session.conversation == full
    session.carry_out(Action.RESET)
    session.carry_out(Instruct(""))
    assert session.conversation == Conversation(settings={"temperature": 0.5})
    assert not session.is_over
    session.carry_out(Action.QUIT)
    assert session.is_over
    assert [told for told in view.told if told not in ("wait", "Hel", "lo", "stop")] == [
        "system prompt set", "temperature is 0.5", "seed is 1", "seed is the server's choice",
        f"saved as {tmp_path}/chat.json", "forgot the last question", f"loaded {tmp_path}/chat.json", "forgot all messages",
        "no system prompt any more",
    ]  # fmt: skip


def test_show_and_help_list():
    session, _, view = session_with([Chunk("Hel"), KeyboardInterrupt()])
    session.carry_out(Instruct("Be brief."))
    with pytest.raises(KeyboardInterrupt):
        session.carry_out(Say("Hi"))
    session.carry_out(Action.SHOW)
    assert view.told[-1] == [("system", "Be brief."), ("user", "Hi"), ("assistant (partial)", "Hel")]
    session.carry_out(Action.HELP)
    assert "/quit" in dict(view.told[-1])


def test_nothing_to_take_back_is_a_mistake():
    session, _, _ = session_with()
    with pytest.raises(UsageError):
        session.carry_out(Action.UNDO)


def spoken(view: type[PipeView] | type[TerminalView], *answer: Chunk | BaseException) -> str:
    screen = StringIO()
    console = Console(file=screen, width=100, color_system=None)
    session = Session(ScriptedModel(answer), "bot", view(console))
    with contextlib.suppress(ChatError, KeyboardInterrupt):
        session.carry_out(Say("Hi"))
    session.carry_out(Action.SHOW)
    return screen.getvalue()


def test_a_pipe_gets_the_answers_text_and_nothing_that_acts_on_a_terminal():
    assert spoken(PipeView, Chunk("\x1b[31mHel"), Chunk("lo\t[bold]"), Chunk(finish_reason="stop")).startswith("[31mHello\t[bold]\n")
    assert spoken(PipeView, Chunk("Hel"), ChatError("no")) == "Hel\n"
    assert spoken(PipeView, ChatError("no")) == ""


def test_a_person_sees_the_answer_and_its_figures():
    screen = spoken(TerminalView, Chunk("\x1b[31mHel"), Chunk("lo[bold]"), Chunk(finish_reason="length"), Chunk("", None, 5, 1234))
    answer, figures, *_ = screen.splitlines()
    assert answer == "[31mHello[bold]"
    assert figures.startswith("1,234 tokens · ")
    assert "cut at max_tokens" in screen
    assert "\x1b" not in screen
    assert "cancelled; what came of it is kept" in spoken(TerminalView, Chunk("Hel"), KeyboardInterrupt())
    assert spoken(TerminalView, KeyboardInterrupt()) == "cancelled\n\n"


def test_a_machine_gets_one_object_an_answer():
    screen = StringIO()
    session = Session(ScriptedModel(HELLO, HELLO), "bot", JsonView(Console(file=screen), "bot"))
    session.carry_out(Say("Hi"))
    session.carry_out(Say("Hi"))
    first, second = map(json.loads, screen.getvalue().splitlines())
    assert first.items() >= {"model": "bot", "text": "Hello", "finish_reason": "stop", "prompt_tokens": 5, "generated_tokens": 2}.items()
    assert first.keys() == second.keys()


def test_speed_is_counted_from_the_first_piece_to_the_last():
    times = iter([10.0, 10.5, 11.0, 12.5])
    answer = Answer(clock=lambda: next(times))
    for chunk in (Chunk("a"), Chunk("b"), Chunk("c"), Chunk(finish_reason="stop"), Chunk(num_prompt_tokens=1, num_tokens=41)):
        answer.add(chunk)
    assert answer.first_text_s == 0.5
    assert answer.tokens_per_s == 40 / 2


def test_speed_of_one_piece_is_unknown():
    answer = Answer()
    for chunk in (Chunk("a"), Chunk(num_prompt_tokens=1, num_tokens=1)):
        answer.add(chunk)
    assert answer.tokens_per_s is None
