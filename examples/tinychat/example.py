"""One training or test item: a short conversation whose last answer is known to be right."""

import hashlib
from dataclasses import dataclass

HELD_OUT_ONE_IN = 10


@dataclass(frozen=True)
class Turn:
    """One message of a conversation, in the roles of the chat template."""

    role: str
    content: str


@dataclass(frozen=True)
class Example:
    """A conversation that ends with the reference answer.

    `keys` name the values that the conversation is about (an operand pair, a person and a city, ...).
    The last key belongs to the last answer and decides on which side of the train/held-out split it falls.
    """

    kind: str
    turns: tuple[Turn, ...]
    keys: tuple[str, ...]

    @property
    def prompt(self) -> tuple[Turn, ...]:
        """Everything before the reference answer."""
        return self.turns[:-1]

    @property
    def answer(self) -> str:
        """The reference answer."""
        return self.turns[-1].content

    @property
    def trainable(self) -> bool:
        """True if training may see it: none of its values is held out."""
        return not any(is_held_out(key) for key in self.keys)

    @property
    def held_out(self) -> bool:
        """True if the values behind its last answer never appear in training."""
        return is_held_out(self.keys[-1])


def ask(kind: str, question: str, answer: str, key: str) -> Example:
    """A single question and its answer."""
    return Example(kind, (Turn("user", question), Turn("assistant", answer)), (f"{kind}:{key}",))


def is_held_out(key: str) -> bool:
    """Split by content: a hash of the key, so the split needs no state and is the same for every seed."""
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_ONE_IN == 0
