"""The kinds of examples in the corpus, their shares, and how an answer of each is judged."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from example import Example

from kinds import arithmetic, copying, extraction, facts, lists, memory, reading, smalltalk, stories, system


def _equals_reference(example: Example, answer: str) -> bool:
    return answer == example.answer


@dataclass(frozen=True)
class Kind:
    """One kind of example: its share of the corpus, how to draw one, and whether an answer to one is right."""

    weight: float
    draw: Callable[[Random], Example]
    is_right: Callable[[Example, str], bool] = _equals_reference


KINDS = {
    arithmetic.KIND: Kind(34, arithmetic.draw),
    extraction.KIND: Kind(13, extraction.draw),
    reading.KIND: Kind(10, reading.draw),
    facts.KIND: Kind(14, facts.draw),
    lists.KIND: Kind(9, lists.draw, lists.is_right),
    stories.KIND: Kind(5, stories.draw, stories.is_right),
    smalltalk.KIND: Kind(7, smalltalk.draw),
    copying.KIND: Kind(8, copying.draw),
    memory.KIND: Kind(5, memory.draw),
    system.KIND: Kind(7, system.draw),
}
