"""Questions about a short text: find the one sentence that answers."""

from dataclasses import dataclass
from random import Random

from example import Example, ask
from words import ANIMALS, CITIES, COLORS, FOODS, JOBS, SPORTS, THINGS, an, invented_word, person

KIND = "reading"


@dataclass(frozen=True)
class Attribute:
    """Something a text says about a person: how it says it, how to ask for it, and how to answer."""

    values: tuple[str, ...]
    statements: tuple[str, ...]
    questions: tuple[str, ...]
    answer: str


_ATTRIBUTES = (
    Attribute(
        tuple(CITIES),
        ("{name} lives in {value}.", "{name} has a house in {value}.", "The home of {name} is in {value}."),
        ("Where does {name} live?", "In which city does {name} live?", "Which city does {name} live in?"),
        "{name} lives in {value}.",
    ),
    Attribute(
        tuple(an(job) for job in JOBS),
        ("{name} is {value}.", "{name} works as {value}.", "The job of {name} is to be {value}."),
        ("What is the job of {name}?", "What does {name} do for work?", "What job does {name} have?"),
        "{name} is {value}.",
    ),
    Attribute(
        tuple(FOODS),
        ("{name} likes to eat {value}.", "The favorite food of {name} is {value}.", "{name} loves {value}."),
        ("What does {name} like to eat?", "What is the favorite food of {name}?", "Which food does {name} like?"),
        "{name} likes to eat {value}.",
    ),
    Attribute(
        tuple(SPORTS),
        ("{name} plays {value}.", "{name} plays {value} every week.", "On Sundays {name} plays {value}."),
        ("What does {name} play?", "Which sport does {name} play?", "What sport does {name} play?"),
        "{name} plays {value}.",
    ),
    Attribute(
        tuple(an(animal) for animal in ANIMALS),
        ("{name} has {value} as a pet.", "{name} keeps {value} at home.", "The pet of {name} is {value}."),
        ("What pet does {name} have?", "Which animal does {name} have as a pet?", "What is the pet of {name}?"),
        "{name} has {value} as a pet.",
    ),
    Attribute(
        tuple(str(age) for age in range(2, 100)),
        ("{name} is {value} years old.", "{name} is now {value} years old.", "The age of {name} is {value}."),
        ("How old is {name}?", "What is the age of {name}?", "How many years old is {name}?"),
        "{name} is {value} years old.",
    ),
    Attribute(
        tuple(f"{an(color)} {thing}" for color in COLORS for thing in THINGS),
        ("{name} bought {value}.", "Last week {name} bought {value}.", "{name} went to the shop and bought {value}."),
        ("What did {name} buy?", "Which thing did {name} buy?", "What did {name} buy at the shop?"),
        "{name} bought {value}.",
    ),
)
_FRAMES = (
    "{text} {question}", "{text} {question}", "{text}\n{question}", "{text}\n\n{question}", "{question} {text}",
    "Text: {text}\nQuestion: {question}", "Read this: {text} {question}", "Answer the question. {text} {question}",
    "Context: {text}\n\nQuestion: {question}",
)  # fmt: skip


def draw(rng: Random) -> Example:
    """Two to five statements about one to three people, and a question about one of them."""
    people = [person(rng) for _ in range(rng.randint(1, 3))]
    people = list(dict.fromkeys(people))
    pairs = [(name, attribute) for name in people for attribute in _ATTRIBUTES]
    chosen = rng.sample(pairs, rng.randint(2, 5))
    facts = [(name, attribute, _value(rng, attribute)) for name, attribute in chosen]
    text = " ".join(rng.choice(attribute.statements).format(name=name, value=value) for name, attribute, value in facts)
    name, attribute, value = rng.choice(facts)
    question = rng.choice(attribute.questions).format(name=name)
    answer = attribute.answer.format(name=name, value=value)
    return ask(KIND, rng.choice(_FRAMES).format(text=text, question=question), answer, f"{name}|{value}")


def _value(rng: Random, attribute: Attribute) -> str:
    if attribute.values[0] == CITIES[0] and rng.random() < 0.2:
        return invented_word(rng).capitalize()
    return rng.choice(attribute.values)
