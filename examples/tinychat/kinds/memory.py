"""Multi-turn conversations: remember what the user said, and go on from the last answer."""

from random import Random

from example import Example, Turn
from words import ANIMALS, CITIES, COLORS, FOODS, JOBS, an, invented_word, person

from kinds import arithmetic, facts

KIND = "memory"

_TOPICS = {
    "name": (
        ("My name is {}.", "Hi, I am {}.", "Hello, my name is {}.", "I'm {}.", "Hi there, my name is {}!", "Call me {}."),
        "Nice to meet you, {}!",
        ("What is my name?", "What's my name?", "Do you remember my name?", "Who am I?", "Tell me my name.", "Do you know my name?"),
        "Your name is {}.",
    ),
    "city": (
        ("I live in {}.", "My home is in {}.", "I am from {}.", "I come from {}."),
        "{} sounds like a nice place.",
        ("Where do I live?", "Which city do I live in?", "Do you remember where I live?", "What city am I from?"),
        "You live in {}.",
    ),
    "color": (
        ("My favorite color is {}.", "I like the color {} best.", "The color I love most is {}."),
        "I like {} too!",
        ("What is my favorite color?", "Which color do I like?", "Do you remember my favorite color?"),
        "Your favorite color is {}.",
    ),
    "food": (
        ("My favorite food is {}.", "I love {}.", "I like to eat {}."),
        "{} sounds delicious.",
        ("What is my favorite food?", "What do I like to eat?", "Do you remember my favorite food?"),
        "Your favorite food is {}.",
    ),
    "pet": (
        ("I have {} at home.", "My pet is {}.", "I have {} as a pet."),
        "How nice, {}!",
        ("What pet do I have?", "Which pet do I have?", "Do you remember my pet?"),
        "You have {}.",
    ),
    "job": (
        ("I work as {}.", "I am {}.", "My job is to be {}."),
        "Being {} is an important job.",
        ("What is my job?", "What do I do for work?", "Do you remember my job?"),
        "You work as {}.",
    ),
    "age": (
        ("I am {} years old.", "My age is {}.", "I just turned {}."),
        "{} is a great age.",
        ("How old am I?", "What is my age?", "Do you remember how old I am?"),
        "You are {} years old.",
    ),
}
_FOLLOW_UPS = {
    "+": ("Now add {}.", "Add {} to that.", "And plus {}?", "Add {} more.", "Plus {}?"),
    "-": ("Now subtract {}.", "Subtract {} from that.", "And minus {}?", "Take away {}.", "Minus {}?"),
}


def draw(rng: Random) -> Example:
    """A statement, perhaps a question in between, and a question about the statement; or a chain of two calculations."""
    if rng.random() < 0.25:
        return _calculation(rng)
    topics = rng.sample(list(_TOPICS), rng.choice((1, 1, 2)))
    values = {topic: _value(rng, topic) for topic in topics}
    turns: list[Turn] = []
    keys: list[str] = []
    for topic in topics:
        statements, reply, _, _ = _TOPICS[topic]
        turns += _exchange(rng.choice(statements).format(values[topic]), _capitalized(reply.format(values[topic])))
    if rng.random() < 0.4:
        between = rng.choice((arithmetic, facts)).draw(rng)
        turns += between.turns
        keys += between.keys
    topic = rng.choice(topics)
    _, _, questions, answer = _TOPICS[topic]
    turns += _exchange(rng.choice(questions), answer.format(values[topic]))
    return Example(KIND, tuple(turns), (*keys, f"{KIND}:{topic}?{values}"))


def _calculation(rng: Random) -> Example:
    a, b, c = rng.randrange(50), rng.randrange(50), rng.randrange(50)
    sign = rng.choice("+-") if c <= a + b else "+"
    total = a + b
    result, second_key = (total + c, arithmetic.sum_key(total, c)) if sign == "+" else (total - c, f"{total}-{c}")
    turns = _exchange(f"What is {a} + {b}?", f"{a} + {b} = {total}.")
    turns += _exchange(rng.choice(_FOLLOW_UPS[sign]).format(c), f"{total} {sign} {c} = {result}.")
    return Example(KIND, tuple(turns), (f"{arithmetic.KIND}:{arithmetic.sum_key(a, b)}", f"{arithmetic.KIND}:{second_key}"))


def _exchange(question: str, answer: str) -> list[Turn]:
    return [Turn("user", question), Turn("assistant", answer)]


def _capitalized(text: str) -> str:
    return text[0].upper() + text[1:]


def _value(rng: Random, topic: str) -> str:
    if topic == "name":
        return person(rng)
    if topic == "city" and rng.random() < 0.2:
        return invented_word(rng).capitalize()
    if topic == "age":
        return str(rng.randint(5, 99))
    lists = {"city": CITIES, "color": COLORS, "food": FOODS, "pet": [an(animal) for animal in ANIMALS], "job": [an(job) for job in JOBS]}
    return rng.choice(lists[topic])
