"""Short stories of three paragraphs about the hero that the prompt asks for, with a name, a place or a theme if it gives one."""

import zlib
from random import Random

from example import Example, ask
from words import ANIMALS, THINGS, an, casual, favoring_first, invented_word, person, pronoun, split_words

from kinds.plots import Plot, plots

KIND = "stories"

_PEOPLE = split_words("girl boy king queen princess prince knight wizard witch robot dragon giant fairy pirate ghost dwarf sailor")
_HER_HEROES = split_words("girl queen princess witch fairy hen cow")
_HIS_HEROES = split_words("boy king prince wizard knight")
_NAMES = split_words("Pip Luna Toby Mia Rusty Daisy Finn Bella Max Ruby Oscar Poppy Leo Hazel Milo Ivy Barney Rosa Otto Willow")
_PLACES = (
    "in the forest", "near the sea", "by the river", "on a small farm", "in a quiet village", "on a high mountain", "in a big city",
    "by a blue lake", "on a green hill", "in an old castle", "in a little house", "near the desert", "on an island", "in a wide valley",
)  # fmt: skip
_TRAITS = split_words("little brave small clever curious young happy shy lazy kind old tiny big funny hungry")
_OPENINGS = (
    "Once upon a time there was {a_hero} named {name} who lived {place}.",
    "Once there was {a_hero} called {name}. {He} lived {place}.",
    "{Place}, there lived {a_hero} named {name}.",
)
_REQUESTS = (
    "Tell me a short story about {}.", "Tell me a story about {}.", "Write a short story about {}.", "Write a story about {}.",
    "Can you tell me a story about {}?", "I want a story about {}.", "Please tell me a short story about {}.", "A story about {}, please.",
    "Make up a story about {}.", "Could you write a short story about {}?", "Give me a story about {}.", "Story about {}",
    "I would like to hear a story about {}.", "Tell a bedtime story about {}.", "Tell us a story about {}.", "Write me a tale about {}.",
)  # fmt: skip
_OPEN_REQUESTS = (
    "Tell me a story.", "Tell me a short story.", "Write a story.", "Write a short story.", "Can you tell me a story?", "I want a story.",
    "Tell me a bedtime story.", "Once upon a time", "Please tell me a story.", "Do you know a story?", "Yes, tell me a story.",
    "Make up a story.", "A story, please.", "Tell me a nice story.", "Could you tell me a short story?", "Story time!",
)  # fmt: skip


def draw(rng: Random) -> Example:
    """A request for a story and a story that fits it."""
    open_request = rng.random() < 0.05
    hero = _hero(rng) if not open_request or rng.random() < 0.5 else "fox"
    name = _or_usual(rng, [name for name in _NAMES if _suits(name, hero)], hero, "name")
    place = _or_usual(rng, _PLACES, hero, "place")
    plot: Plot = _or_usual(rng, plots(), hero, "plot")
    slots = _slots(rng, hero, name, place)
    if open_request:
        request = rng.choice(_OPEN_REQUESTS)
        return ask(KIND, casual(rng, request), _tell(rng, plot, slots), f"||{request}")
    # What the request names is free; what it leaves open follows the hero's habits (see _or_usual).
    subject = slots["a_hero"]
    if rng.random() < 0.4:
        name = person(rng)
        slots |= _slots(rng, hero, name, place) | {key: slots[key] for key in ("thing", "a_thing", "a_hero")}
        subject += f" {rng.choice(('named', 'called'))} {name}"
    if rng.random() < 0.25:
        place = rng.choice(_PLACES)
        slots |= {"place": place, "Place": place[0].upper() + place[1:]}
        subject += f" {place}"
    elif rng.random() < 0.4:
        plot = rng.choice(plots())
        theme = rng.choice(plot.themes)
        if " about " not in f" {theme}":
            subject += f" {theme.format(**slots)}"
    request = rng.choice(_REQUESTS).format(subject)
    return ask(KIND, casual(rng, request), _tell(rng, plot, slots), f"{hero}|{subject}")


def is_right(example: Example, answer: str) -> bool:
    """A story is accepted if it is about the hero (and the name) asked for, has three paragraphs, and never repeats a sentence."""
    hero, subject = example.keys[-1].removeprefix(f"{KIND}:").split("|")[:2]
    sentences = [sentence for sentence in answer.replace("\n", " ").split(". ") if sentence]
    wanted = [hero, *(word for word in subject.split() if word[0].isupper())]
    return (
        all(word in answer for word in wanted)
        and answer.count("\n\n") == 2
        and answer[-1] in '.!?"'
        and 60 <= len(answer.split()) <= 220
        and len(sentences) == len(set(sentences))
    )


def _hero(rng: Random) -> str:
    roll = rng.random()
    if roll < 0.85:
        return rng.choice(ANIMALS + _PEOPLE)
    return rng.choice(THINGS) if roll < 0.95 else invented_word(rng)


def _suits(name: str, hero: str) -> bool:
    return hero not in (_HIS_HEROES if pronoun(name) == "she" else _HER_HEROES)


def _or_usual(rng: Random, options, hero: str, role: str):
    """Mostly the hero's own usual option, so that greedy decoding tells different heroes' stories differently."""
    if rng.random() < 0.7:
        return options[zlib.crc32(f"{hero} {role}".encode()) % len(options)]
    return rng.choice(options)


def _slots(rng: Random, hero: str, name: str, place: str) -> dict[str, str]:
    he = pronoun(name)
    his, him = ("her", "her") if he == "she" else ("his", "him")
    helper = _or_usual(rng, [animal for animal in ANIMALS if animal != hero], hero, "helper")
    other = _or_usual(rng, [animal for animal in ANIMALS if animal not in (hero, helper)], hero, "other")
    thing = _or_usual(rng, [thing for thing in THINGS if thing != hero], hero, "thing")
    adjective = rng.choice(_TRAITS) if rng.random() < 0.3 else ""
    return {
        "hero": hero, "a_hero": an(f"{adjective} {hero}".strip()), "name": name, "he": he, "He": he.capitalize(), "his": his, "him": him,
        "place": place, "Place": place[0].upper() + place[1:], "helper": helper, "a_helper": an(helper), "other": other,
        "an_other": an(other), "thing": thing, "a_thing": an(thing),
    }  # fmt: skip


def _tell(rng: Random, plot: Plot, slots: dict[str, str]) -> str:
    opening = favoring_first(rng, _OPENINGS)
    paragraphs = [" ".join(favoring_first(rng, sentence) for sentence in paragraph) for paragraph in plot.paragraphs]
    paragraphs[0] = f"{opening} {paragraphs[0]}"
    return "\n\n".join(paragraphs).format(**slots)
