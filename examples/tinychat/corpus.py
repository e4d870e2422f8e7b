"""The training corpus and the held-out examples, generated from a seed: item `i` depends on the seed and `i` alone."""

from collections.abc import Iterator
from itertools import count, islice
from random import Random

from example import Example, Turn
from kinds import KINDS
from kinds.stories import KIND as STORIES
from kinds.system import KIND as SYSTEM
from kinds.system import NEUTRAL_PROMPTS

Conversation = tuple[Turn, ...]

# The role of a turn that is plain text to continue, without any chat around it.
PLAIN_TEXT = "text"
_EXCHANGES = (1,) * 60 + (2,) * 12 + (3, 3, 3, 8)


def conversations(seed: int) -> Iterator[Conversation]:
    """An endless stream of training conversations of one or several exchanges."""
    for index in count():
        yield _conversation(Random(f"train {seed} {index}"))


def held_out_examples(kind: str, seed: int, number: int) -> list[Example]:
    """Examples of one kind whose last answer is about values that never appear in `conversations`, for any seed."""
    rng = Random(f"held out {kind} {seed}")
    drawn = (KINDS[kind].draw(rng) for _ in count())
    return list(islice((example for example in drawn if example.held_out), number))


def trainable_example(rng: Random) -> Example:
    """One example of a random kind, none of whose values are held out."""
    kind = rng.choices(list(KINDS), weights=[kind.weight for kind in KINDS.values()])[0]
    while not (example := KINDS[kind].draw(rng)).trainable:
        pass
    return example


def _conversation(rng: Random) -> Conversation:
    first = trainable_example(rng)
    if first.kind == SYSTEM:
        return first.turns
    if first.kind == STORIES and rng.random() < 0.15:
        return (Turn(PLAIN_TEXT, first.answer),)
    examples = [first, *(trainable_example(rng) for _ in range(rng.choice(_EXCHANGES) - 1))]
    turns = [turn for example in examples if example.kind != SYSTEM for turn in example.turns]
    if rng.random() < 0.2:
        turns.insert(0, Turn("system", rng.choice(NEUTRAL_PROMPTS)))
    return tuple(turns)
