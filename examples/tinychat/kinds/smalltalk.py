"""Greetings, thanks, questions about tinychat itself, and an honest answer to what it cannot do.

The intents are read from `smalltalk.txt`: `#` and a sort, the ways to say it, apart by `|`, and the reply after `->`. A greeting may come
before a `question`, but not before a `remark` (which may be a greeting itself); the `unknown` is what tinychat has to decline.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from example import Example, ask
from words import casual

KIND = "smalltalk"

_GREETINGS = ("Hello, ", "Hi, ", "Hey, ", "Hello! ", "Hi! ", "Hey! ", "Good morning, ", "Hi there, ", "Hello there! ")
_TOPICS = (
    "quantum physics", "machine learning", "the stock market", "democracy", "black holes", "the French Revolution", "inflation",
    "photosynthesis", "the internet", "Python programming", "the Roman Empire", "climate change", "philosophy", "calculus", "love",
    "the universe", "gravity", "DNA", "evolution", "the news", "the president", "the weather tomorrow", "electricity", "cryptocurrency",
    "Kubernetes", "neural networks", "the meaning of life", "opera", "World War II", "vaccines", "algebra", "the moon landing",
    "chemistry", "the economy", "Shakespeare", "blockchain", "relativity", "Linux", "yoga", "the human brain",
)  # fmt: skip


@dataclass(frozen=True)
class Intent:
    """What a visitor may want to say, the ways to say it, and the reply."""

    sort: str
    phrasings: tuple[str, ...]
    reply: str


def draw(rng: Random) -> Example:
    """Something a visitor may say, and tinychat's reply."""
    *known, unknown = intents()
    # The first intents are who tinychat is and what it can do, which people ask most.
    intent = unknown if rng.random() < 0.22 else rng.choice(known + known[:5])
    text = rng.choice(intent.phrasings).replace("{topic}", rng.choice(_TOPICS))
    if intent.sort == "question" and rng.random() < 0.35:
        text = rng.choice(_GREETINGS) + (text if text.startswith("I ") else text[0].lower() + text[1:])
    key = text
    if text[-1] not in ".?!":
        text += rng.choice((".", "!", "", "!"))
    return ask(KIND, casual(rng, text), intent.reply, key)


@cache
def intents() -> tuple[Intent, ...]:
    """All intents, in the order of the file."""
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").strip()
    return tuple(_intent(block) for block in text.removeprefix("# ").split("\n\n# "))


def _intent(block: str) -> Intent:
    sort, body = block.split("\n", 1)
    phrasings, reply = body.split("\n-> ")
    return Intent(sort, tuple(phrasings.replace("\n", " | ").split(" | ")), reply)
