"""Sums, differences and comparisons of numbers from 0 to 99, as expressions, in words and as word problems."""

from random import Random

from example import Example, ask
from words import NAMES, THINGS, casual, plural

KIND = "arithmetic"

_FRAMES = (
    "What is {}?", "What is {}?", "What is {}?", "What's {}?", "{}", "{} =", "{} = ?", "Calculate {}.", "Compute {}.", "How much is {}?",
    "Please compute {}.", "Solve {}.", "Can you tell me what {} is?", "Work out {}.", "What does {} equal?", "Tell me the result of {}.",
    "Can you calculate {}?", "I need to know what {} is.", "What do you get for {}?", "Quick question: what is {}?", "Evaluate {}.",
)  # fmt: skip
_SUMS = ("{a} + {b}",) * 5 + ("{a} plus {b}",) * 2 + ("{a}+{b}", "the sum of {a} and {b}")
_DIFFERENCES = ("{a} - {b}",) * 5 + ("{a} minus {b}",) * 2 + ("{a}-{b}", "the difference between {a} and {b}")
_SUM_REQUESTS = ("Add {a} and {b}.", "Add {b} to {a}.", "What do {a} and {b} make together?", "If you add {b} to {a}, what do you get?")
_DIFFERENCE_REQUESTS = ("Subtract {b} from {a}.", "Take {b} away from {a}.", "If you take {b} from {a}, what is left?")
_GAIN_STORIES = (
    "{name} has {a} {things} and buys {b} more. How many {things} does {name} have now?",
    "{name} has {a} {things}. A friend gives {name} {b} more {things}. How many {things} does {name} have?",
    "There are {a} {things} in one box and {b} {things} in another box. {name} counts them all. How many {things} does {name} have?",
)
_LOSS_STORIES = (
    "{name} has {a} {things} and gives away {b}. How many {things} does {name} have now?",
    "{name} had {a} {things} but lost {b} of them. How many {things} does {name} have now?",
    "{name} has {a} {things}. {name} sells {b} {things}. How many {things} does {name} have left?",
)
_COMPARISONS = ("Which is {w}, {a} or {b}?", "Which number is {w}: {a} or {b}?", "What is {w}, {a} or {b}?", "Is {a} or {b} {w}?")


def draw(rng: Random) -> Example:
    """A question about two numbers."""
    a, b = _number(rng), _number(rng)
    roll = rng.random()
    if roll < 0.10:
        return _compare(rng, a, b)
    if roll < 0.22:
        return _story(rng, a, b)
    return _expression(rng, a, b)


def sum_key(a: int, b: int) -> str:
    """One key for both orders of the operands, so that a + b in training never gives away a held-out b + a."""
    return f"{min(a, b)}+{max(a, b)}"


def _number(rng: Random) -> int:
    return rng.randrange(21 if rng.random() < 0.15 else 100)


def _expression(rng: Random, a: int, b: int) -> Example:
    add = rng.random() < 0.5
    if not add and a < b and rng.random() < 0.7:
        a, b = b, a
    phrase = rng.choice(_SUMS if add else _DIFFERENCES)
    if rng.random() < 0.15:
        question = rng.choice(_SUM_REQUESTS if add else _DIFFERENCE_REQUESTS).format(a=a, b=b)
    elif phrase.startswith("the"):
        a, b = max(a, b), min(a, b)
        question = f"What is {phrase.format(a=a, b=b)}?"
    else:
        question = rng.choice(_FRAMES).format(phrase.format(a=a, b=b))
    answer, key = (f"{a} + {b} = {a + b}.", sum_key(a, b)) if add else (f"{a} - {b} = {a - b}.", f"{a}-{b}")
    return ask(KIND, casual(rng, question), answer, key)


def _story(rng: Random, a: int, b: int) -> Example:
    values = {"name": rng.choice(NAMES), "things": plural(rng.choice(THINGS))}
    a, b = max(a, b, 2), max(min(a, b), 2)
    if rng.random() < 0.5:
        question = rng.choice(_GAIN_STORIES).format(a=a, b=b, **values)
        return ask(KIND, question, f"{values['name']} has {a} + {b} = {a + b} {values['things']}.", sum_key(a, b))
    question = rng.choice(_LOSS_STORIES).format(a=a, b=b, **values)
    return ask(KIND, question, f"{values['name']} has {a} - {b} = {a - b} {values['things']}.", f"{a}-{b}")


def _compare(rng: Random, a: int, b: int) -> Example:
    b = b if a != b else (a + 1) % 100
    word = rng.choice(("larger", "bigger", "greater", "smaller"))
    question = rng.choice(_COMPARISONS).format(w=word, a=a, b=b)
    low, high = sorted((a, b))
    answer = f"{low} is smaller than {high}." if word == "smaller" else f"{high} is {word} than {low}."
    return ask(KIND, casual(rng, question), answer, f"{low}<{high}")
