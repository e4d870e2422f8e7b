"""A closed set of facts, each asked in many ways. A fact cannot be guessed, so the split holds out fact and wording together.

The facts are read from `facts.txt`. A relation starts with `#`, its name and its weight. Then come the ways to ask, apart by `|`,
the answer after `->`, and the pairs that stand in the relation. A pair `noun/place` can be asked for by its parts.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

from example import Example, ask
from words import casual

KIND = "facts"

_TIMES = "times"
_TIMES_SIGNS = ("times", "times", "*", "x")


@dataclass(frozen=True)
class Relation:
    """One kind of fact: its pairs, the ways to ask for one, and the answer."""

    name: str
    weight: int
    questions: tuple[str, ...]
    answer: str
    pairs: tuple[tuple[str, str], ...]


def draw(rng: Random) -> Example:
    """A fact and one way to ask for it."""
    relation = rng.choices(relations(), weights=[relation.weight for relation in relations()])[0]
    x, y = rng.choice(relation.pairs)
    question = rng.choice(relation.questions)
    key = f"{x}|{question}"
    answer = _fill(relation.answer, x, y)
    if relation.name == _TIMES:
        x = x.replace(" x ", f" {rng.choice(_TIMES_SIGNS)} ")
    return ask(KIND, casual(rng, _fill(question, x, y)), answer, key)


@cache
def relations() -> tuple[Relation, ...]:
    """All relations, in the order of the file."""
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").strip()
    return tuple(_relation(block) for block in text.removeprefix("# ").split("\n\n# "))


def _relation(block: str) -> Relation:
    heading, body = block.split("\n", 1)
    name, weight = heading.split(", weight ")
    questions, rest = body.split("\n-> ")
    answer, *lines = rest.split("\n")
    pairs = tuple(tuple(pair.split(" = ")) for line in lines for pair in line.split(", "))
    if name == _TIMES:
        pairs = tuple((f"{a} x {b}", str(a * b)) for a in range(11) for b in range(11))
    return Relation(name, int(weight), tuple(questions.replace("\n", " | ").split(" | ")), answer, pairs)


def _fill(pattern: str, x: str, y: str) -> str:
    noun, _, place = x.partition("/")
    owner = place.partition(" ")[2]
    text = pattern.format(x=x, X=x[0].upper() + x[1:], y=y, noun=noun, place=place, owner=owner)
    return text[0].upper() + text[1:]
