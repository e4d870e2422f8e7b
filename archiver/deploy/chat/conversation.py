"""What was said so far, and what the next request says: a value, so that whatever fails leaves the one before as it was."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from archiver.deploy.chat.parameters import Value
from archiver.errors import UsageError


@dataclass(frozen=True)
class Message:
    """One message; ``is_partial``: the answer was cancelled, and this is what had come of it."""

    role: Literal["user", "assistant"]
    content: str
    is_partial: bool = False


@dataclass(frozen=True)
class Conversation:
    """A system prompt (none if empty), messages in their order, and sampling parameters; those not set are the server's own."""

    system: str = ""
    messages: tuple[Message, ...] = ()
    settings: dict[str, Value] = field(default_factory=dict)

    def instruct(self, system: str) -> Conversation:
        """Return it with another system prompt."""
        return replace(self, system=system)

    def set(self, name: str, value: Value | None) -> Conversation:
        """Return it with a parameter set; None gives it back to the server."""
        others = {other: kept for other, kept in self.settings.items() if other != name}
        return replace(self, settings=others if value is None else {**others, name: value})

    def ask(self, text: str) -> Conversation:
        """Return it with the user's next message."""
        return replace(self, messages=(*self.messages, Message("user", text)))

    def answer(self, text: str, *, is_partial: bool = False) -> Conversation:
        """Return it with the model's answer."""
        return replace(self, messages=(*self.messages, Message("assistant", text, is_partial)))

    def reset(self) -> Conversation:
        """Return it without messages; system prompt and settings stay."""
        return replace(self, messages=())

    def undo(self) -> Conversation:
        """Return it without the last question and its answer; raises UsageError when there is none."""
        return replace(self, messages=self.messages[: self._last_question()])

    def retry(self) -> Conversation:
        """Return it with the last question unanswered; raises UsageError when there is none."""
        return replace(self, messages=self.messages[: self._last_question() + 1])

    def body(self, model: str) -> dict[str, Any]:
        """Return the body of a streamed request for the next answer (chat completions of the OpenAI API)."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        messages = [*system, *({"role": message.role, "content": message.content} for message in self.messages)]
        return {**self.settings, "model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}

    def save(self, path: Path) -> None:
        """Write it to a file; raises UsageError where that cannot be."""
        try:
            path.write_bytes(_FORMAT.dump_json(self, indent=2))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None

    @classmethod
    def load(cls, path: Path) -> Conversation:
        """Read what ``save`` wrote; raises UsageError for any other file."""
        try:
            return _FORMAT.validate_json(path.read_bytes(), strict=True)
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}") from None
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(map(str, problem["loc"]))
            raise UsageError(f"{path} is no saved conversation: {where}{': ' if where else ''}{problem['msg']}") from None

    def _last_question(self) -> int:
        questions = [index for index, message in enumerate(self.messages) if message.role == "user"]
        if not questions:
            raise UsageError("nothing has been asked yet")
        return questions[-1]


_FORMAT = TypeAdapter(Conversation)
