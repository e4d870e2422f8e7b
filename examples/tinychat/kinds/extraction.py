"""Pull named fields out of a sentence and return them as JSON."""

import json
from random import Random

from example import Example, ask
from words import CITIES, COLORS, FOODS, JOBS, THINGS, an, invented_word, person, split_words

KIND = "extraction"

_DAYS = split_words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
_EVENTS = split_words("party meeting concert lesson lunch match wedding workshop exam picnic")
_SENTENCES = (
    "{name} is {age} years old.",
    "{name}, aged {age}, works as {a_job}.",
    "{name} is {age} years old and lives in {city}.",
    "My friend {name} lives in {city}.",
    "{name} lives in {city} and is {age} years old.",
    "{name} is {a_job} from {city}.",
    "{name} works as {a_job} in {city}.",
    "{name} is a {age}-year-old {job} who lives in {city}.",
    "At the age of {age}, {name} became {a_job} in {city}.",
    "I met {name} in {city}. {Name_is} {age} and likes {food}.",
    "The {item} costs {price} dollars.",
    "{name} bought {a_color_item} for {price} dollars.",
    "You can buy the {color} {item} for {price} dollars in {city}.",
    "{name} ordered {quantity} {color} {item}s.",
    "We sold {quantity} {item}s to {name} for {price} dollars.",
    "The {event} is on {day} at {hour} o'clock.",
    "The {event} in {city} starts on {day}.",
    "{name} has a {event} on {day} at {hour} o'clock in {city}.",
    "It is {temperature} degrees in {city} on {day}.",
    "The temperature in {city} is {temperature} degrees.",
    "Hi, I am {name}, I am {age}, and my favorite food is {food}.",
    "Send {quantity} {item}s to {name} in {city} by {day}.",
)
_FIELDS = split_words("name age city job item price color quantity event day hour temperature food")
_FRAMES = (
    "Extract {fields} as JSON: {text}",
    "Extract {fields} as JSON: {text}",
    "Extract {fields} as JSON.\n{text}",
    "Extract {fields} in JSON format: {text}",
    "Extract {fields} from this text as JSON: {text}",
    "Extract {fields} from the following sentence and return JSON.\n\n{text}",
    "Return {fields} as JSON: {text}",
    "Give me {fields} as JSON. Text: {text}",
    "Find {fields} in this sentence and answer in JSON: {text}",
    "Text: {text}\nExtract {fields} as JSON.",
    "{text}\n\nReturn {fields} as a JSON object.",
    "{text} Extract {fields} as JSON.",
)


def draw(rng: Random) -> Example:
    """A sentence, the fields to take out of it, and the JSON object that holds them in the order asked for."""
    values = _values(rng)
    sentence = rng.choice(_SENTENCES)
    present = [field for field in _FIELDS if _mentions(sentence, field)]
    wanted = rng.sample(present, k=len(present) if rng.random() < 0.4 else rng.randint(1, len(present)))
    # The article is part of the sentence, not of the value, hence the composed slots.
    text = sentence.format(
        a_job=an(values["job"]), a_color_item=f"{an(values['color'])} {values['item']}", Name_is=f"{values['name']} is", **values
    )
    question = rng.choice(_FRAMES).format(fields=_fields_phrase(rng, wanted), text=text)
    answer = json.dumps({field: values[field] for field in wanted})
    return ask(KIND, question, answer, "|".join(f"{field}={values[field]}" for field in sorted(present)))


def _values(rng: Random) -> dict[str, str | int]:
    return {
        "name": person(rng),
        "age": rng.randint(2, 99),
        "city": rng.choice(CITIES) if rng.random() < 0.8 else invented_word(rng).capitalize(),
        "job": rng.choice(JOBS),
        "item": rng.choice(THINGS).replace("brush", "broom").replace("box", "crate"),
        "price": rng.randint(1, 999),
        "color": rng.choice(COLORS),
        "quantity": rng.randint(2, 60),
        "event": rng.choice(_EVENTS),
        "day": rng.choice(_DAYS),
        "hour": rng.randint(1, 12),
        "temperature": rng.randint(1, 40),
        "food": rng.choice(FOODS),
    }


def _mentions(sentence: str, field: str) -> bool:
    return f"{{{field}}}" in sentence or f"_{field}}}" in sentence or (f"_{field}_" in sentence)


def _fields_phrase(rng: Random, fields: list[str]) -> str:
    names = fields if rng.random() < 0.3 else [f"the {field}" for field in fields]
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"
