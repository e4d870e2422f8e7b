"""Repeat, quote and reorder words of the prompt: the skill that every answer about a given text rests on."""

from random import Random

from example import Example, ask
from words import ANIMALS, CITIES, COLORS, FOODS, JOBS, NAMES, THINGS, casual, invented_word

KIND = "copying"

_WORDS = ANIMALS + CITIES + COLORS + FOODS + JOBS + NAMES + THINGS
_REPEAT = (
    "Repeat after me: {}", "Repeat this: {}", "Say this: {}", "Please repeat: {}", "Echo: {}", "Copy this text: {}",
    "Repeat the following words: {}", "Repeat exactly: {}", "Write this again: {}",
)  # fmt: skip
_TIMES = ("Say {word} {n} times.", "Write the word {word} {n} times.", "Repeat the word {word} {n} times.", "Write {word} {n} times.")
_FIRST = ("What is the first word of: {}", "Which word comes first: {}", "Give me the first word: {}")
_LAST = ("What is the last word of: {}", "Which word comes last: {}", "Give me the last word: {}")
_REVERSE = ("Write these words in reverse order: {}", "Reverse the order of these words: {}", "Say these words backwards: {}")
_COUNTS = {2: "two", 3: "three", 4: "four", 5: "five"}


def draw(rng: Random) -> Example:
    """A request about a few words that stand in the prompt."""
    words = [_word(rng) for _ in range(rng.randint(2, 8))]
    text = " ".join(words)
    roll = rng.random()
    if roll < 0.50:
        return ask(KIND, rng.choice(_REPEAT).format(text), text, text)
    if roll < 0.65:
        n = rng.choice(list(_COUNTS))
        question = rng.choice(_TIMES).format(word=words[0], n=rng.choice((str(n), _COUNTS[n])))
        return ask(KIND, casual(rng, question), " ".join(words[:1] * n), f"{words[0]}*{n}")
    if roll < 0.75:
        return ask(KIND, rng.choice(_FIRST).format(text), words[0], text)
    if roll < 0.85:
        return ask(KIND, rng.choice(_LAST).format(text), words[-1], text)
    words = words[:4]
    text = " ".join(words)
    return ask(KIND, rng.choice(_REVERSE).format(text), " ".join(reversed(words)), text)


def _word(rng: Random) -> str:
    roll = rng.random()
    if roll < 0.60:
        return rng.choice(_WORDS)
    return invented_word(rng) if roll < 0.90 else str(rng.randrange(1000))
