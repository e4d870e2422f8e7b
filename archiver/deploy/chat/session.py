"""One chat: carries out what the user says, one command after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Any, Protocol

from archiver.deploy.chat import commands
from archiver.deploy.chat.answer import Answer
from archiver.deploy.chat.conversation import Conversation
from archiver.deploy.chat.stream import ChatError, Chunk
from archiver.deploy.chat.views import View


class Model(Protocol):
    """Answers; raises ChatError. Closing the generator stops the answer."""

    def stream(self, body: dict[str, Any]) -> Generator[Chunk]: ...


class Session:
    """The conversation so far, and whom it is with. A question that gets no answer, for whatever reason, leaves no trace in it."""

    def __init__(self, client: Model, model: str, view: View, conversation: Conversation = Conversation()) -> None:
        self.conversation = conversation
        self.is_over = False
        self._client = client
        self._model = model
        self._view = view

    def carry_out(self, command: commands.Command) -> None:
        """Do what the user wants. Raises UsageError for what cannot be done, ChatError for an answer that did not come.

        Raises KeyboardInterrupt after a Ctrl-C, too; what had come of the answer is then part of the conversation.
        """
        conversation = self.conversation
        match command:
            case commands.Say(text):
                self._ask(conversation.ask(text))
            case commands.Action.RETRY:
                self._ask(conversation.retry())
            case commands.Instruct(system):
                self._go_on(conversation.instruct(system), "system prompt set" if system else "no system prompt any more")
            case commands.Set(name, None):
                self._go_on(conversation.set(name, None), f"{name} is the server's choice")
            case commands.Set(name, value):
                self._go_on(conversation.set(name, value), f"{name} is {value!r}")
            case commands.Action.UNDO:
                self._go_on(conversation.undo(), "forgot the last question")
            case commands.Action.RESET:
                self._go_on(conversation.reset(), "forgot all messages")
            case commands.Load(path):
                self._go_on(Conversation.load(path), f"loaded {path}")
            case commands.Save(path):
                conversation.save(path)
                self._view.note(f"saved as {path}")
            case commands.Action.SHOW:
                self._view.rows(_content(conversation))
            case commands.Action.HELP:
                self._view.rows(commands.USAGE.items())
            case commands.Action.QUIT:
                self.is_over = True

    def _go_on(self, conversation: Conversation, note: str) -> None:
        self.conversation = conversation
        self._view.note(note)

    def _ask(self, asked: Conversation) -> None:
        answer = Answer()
        self._view.wait()
        try:
            with closing(self._client.stream(asked.body(self._model))) as chunks:
                for chunk in chunks:
                    answer.add(chunk)
                    self._view.piece(chunk.text)
        except ChatError:
            self._view.fail(answer)
            raise
        except KeyboardInterrupt:
            answer.cancel()
            self._take(asked, answer)
            raise
        self._take(asked, answer)

    def _take(self, asked: Conversation, answer: Answer) -> None:
        if answer.text:
            self.conversation = asked.answer(answer.text, is_partial=answer.is_cancelled)
        self._view.end(answer)


def _content(conversation: Conversation) -> Iterator[tuple[str, str]]:
    if conversation.system:
        yield "system", conversation.system
    for name, value in conversation.settings.items():
        yield name, str(value)
    for message in conversation.messages:
        yield message.role + (" (partial)" if message.is_partial else ""), message.content
