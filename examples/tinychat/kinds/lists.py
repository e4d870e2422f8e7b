"""Lists of a given length from a category, numbered, bulleted or separated by commas."""

import re
from random import Random

from example import Example, ask
from words import casual

KIND = "lists"

CATEGORIES = {
    name.strip(): tuple(items.split(", "))
    for name, items in (
        line.split(":")
        for line in (
            "fruits:apple, banana, orange, pear, grape, cherry, lemon, mango, peach, plum, kiwi, strawberry",
            "vegetables:carrot, potato, onion, tomato, pepper, cabbage, spinach, broccoli, cucumber, pea, bean, leek",
            "animals:dog, cat, horse, cow, lion, tiger, elephant, bear, rabbit, fox, monkey, sheep",
            "colors:red, blue, green, yellow, orange, purple, black, white, pink, brown",
            "birds:eagle, owl, parrot, swan, duck, sparrow, penguin, crow, pigeon, robin",
            "insects:ant, bee, butterfly, fly, beetle, wasp, moth, mosquito, cricket, dragonfly",
            "countries:France, Germany, Spain, Italy, Japan, China, India, Brazil, Canada, Egypt, Kenya, Mexico",
            "cities:Paris, London, Rome, Berlin, Tokyo, Madrid, Cairo, Vienna, Oslo, Lima, Boston, Sydney",
            "sports:football, tennis, basketball, swimming, golf, hockey, running, boxing, volleyball, skiing",
            "musical instruments:piano, guitar, violin, drum, flute, trumpet, cello, harp, clarinet, saxophone",
            "vehicles:car, bus, train, bicycle, truck, plane, boat, motorcycle, tram, helicopter",
            "tools:hammer, saw, screwdriver, drill, wrench, pliers, axe, shovel, rake, knife",
            "clothes:shirt, hat, coat, dress, sock, shoe, scarf, glove, jacket, sweater",
            "drinks:water, milk, tea, coffee, juice, lemonade, cocoa, soda, wine, beer",
            "trees:oak, pine, maple, birch, willow, palm, cedar, elm, ash, fir",
            "flowers:rose, tulip, daisy, lily, sunflower, orchid, violet, poppy, iris, daffodil",
            "jobs:teacher, doctor, nurse, baker, farmer, pilot, painter, singer, writer, cook",
            "body parts:head, arm, leg, hand, foot, nose, ear, eye, mouth, knee",
            "kinds of furniture:table, chair, bed, sofa, desk, shelf, wardrobe, bench, stool, cupboard",
            "school subjects:math, science, history, art, music, geography, English, biology, physics, chemistry",
            "planets:Mercury, Venus, Earth, Mars, Jupiter, Saturn, Uranus, Neptune",
            "toys:ball, doll, kite, puzzle, robot, teddy bear, train set, yo-yo, drum, blocks",
            "sea animals:whale, dolphin, shark, octopus, seal, crab, jellyfish, starfish, turtle, lobster",
            "desserts:cake, ice cream, pie, pudding, cookie, brownie, donut, pancake, muffin, chocolate",
            "days of the week:Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
            "months:January, February, March, April, May, June, July, August, September, October, November, December",
        )
    )
}
_NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven"}
_LENGTHS = (2, 3, 3, 3, 4, 4, 5, 5, 6, 7)
_FRAMES = (
    "List {n} {c}{s}.", "List {n} {c}{s}.", "Name {n} {c}{s}.", "Give me {n} {c}{s}.", "Write down {n} {c}{s}.",
    "Give me a list of {n} {c}{s}.", "Make a list of {n} {c}{s}.", "Write a list of {n} {c}{s}.", "Tell me {n} {c}{s}.",
    "Can you list {n} {c}{s}?", "Can you name {n} {c}{s}?", "I need a list of {n} {c}{s}.", "What are {n} {c}{s}?", "Show me {n} {c}{s}.",
    "Please list {n} {c}{s}.", "Please name {n} {c}{s}.",
)  # fmt: skip
_STYLES = {
    "numbered": ("", "", "", " as a numbered list", " in a numbered list"),
    "bullets": (" as bullet points", " in a bullet list", " with bullets", " as a bulleted list"),
    "commas": (" separated by commas", " on one line", " in one line, separated by commas", " with commas between them"),
}
_OPEN_LENGTH = ("some", "a few")


def draw(rng: Random) -> Example:
    """A request for a list and one list that satisfies it."""
    category = rng.choice(list(CATEGORIES))
    length = rng.choice(_LENGTHS)
    style = rng.choices(list(_STYLES), weights=(6, 2, 2))[0]
    number = rng.choice((_NUMBERS[length], _NUMBERS[length], str(length)))
    if length == 5 and rng.random() < 0.3:
        number = rng.choice(_OPEN_LENGTH)
    question = rng.choice(_FRAMES).format(n=number, c=category, s=rng.choice(_STYLES[style]))
    answer = _render(_items(rng, CATEGORIES[category], length), style)
    return ask(KIND, casual(rng, question), answer, f"{category}|{length}|{style}")


def is_right(example: Example, answer: str) -> bool:
    """Any list of the right length and layout with distinct members of the category is right."""
    category, length, style = example.keys[-1].removeprefix(f"{KIND}:").split("|")
    items = re.sub(r"^(\d+\.|-) ", "", answer, flags=re.MULTILINE).split(", " if style == "commas" else "\n")
    if answer != _render(items, style):
        return False
    return len(items) == len(set(items)) == int(length) and set(items) <= set(CATEGORIES[category])


def _items(rng: Random, members: tuple[str, ...], length: int) -> list[str]:
    # The usual members come first half of the time, so that greedy decoding has a favorite and sampling has variety.
    if members[0] in ("Monday", "January", "Mercury") or rng.random() < 0.5:
        return list(members[:length])
    return rng.sample(members, length)


def _render(items: list[str], style: str) -> str:
    if style == "commas":
        return ", ".join(items)
    if style == "bullets":
        return "\n".join(f"- {item}" for item in items)
    return "\n".join(f"{number}. {item}" for number, item in enumerate(items, start=1))
