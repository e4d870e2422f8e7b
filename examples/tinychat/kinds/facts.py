"""A closed set of facts, each asked in many ways. A fact cannot be guessed, so the split holds out fact and wording together."""

from dataclasses import dataclass
from random import Random

from example import Example, ask
from words import an, casual

KIND = "facts"


@dataclass(frozen=True)
class Relation:
    """One kind of fact: its entries, the ways to ask for one (`{x}`), and the answer (`{x}`, `{y}`)."""

    entries: dict[str, str]
    questions: tuple[str, ...]
    answer: str


def _pairs(text: str) -> dict[str, str]:
    return dict(pair.strip().split(" = ") for pair in text.split(","))


_CAPITALS = _pairs(
    "France = Paris, Germany = Berlin, Spain = Madrid, Italy = Rome, England = London, Japan = Tokyo, Egypt = Cairo, Peru = Lima, "
    "Norway = Oslo, Austria = Vienna, Portugal = Lisbon, Ireland = Dublin, Greece = Athens, Poland = Warsaw, China = Beijing, "
    "Russia = Moscow, Canada = Ottawa, Australia = Canberra, India = New Delhi, Kenya = Nairobi, Cuba = Havana, Sweden = Stockholm, "
    "Finland = Helsinki, Denmark = Copenhagen, Belgium = Brussels, Turkey = Ankara, Hungary = Budapest, Brazil = Brasilia, "
    "Argentina = Buenos Aires, Mexico = Mexico City, South Korea = Seoul, Thailand = Bangkok, Switzerland = Bern"
)
_SOUNDS = _pairs(
    "cat = meow, dog = woof, cow = moo, duck = quack, sheep = baa, pig = oink, lion = roar, bee = buzz, frog = croak, owl = hoot, "
    "snake = hiss, horse = neigh, mouse = squeak, rooster = cock-a-doodle-doo"
)
_BABIES = _pairs(
    "cat = kitten, dog = puppy, cow = calf, duck = duckling, sheep = lamb, pig = piglet, lion = cub, bear = cub, frog = tadpole, "
    "goose = gosling, goat = kid, horse = foal, deer = fawn, kangaroo = joey, swan = cygnet, hen = chick"
)
_LEGS = _pairs("dog = four, cat = four, horse = four, spider = eight, ant = six, bee = six, bird = two, person = two, snake = no")
_COLORS = _pairs(
    "banana = yellow, lemon = yellow, tomato = red, strawberry = red, carrot = orange, grass = green, cucumber = green, snow = white, "
    "milk = white, coal = black, chocolate = brown, elephant = gray, flamingo = pink, frog = green, sky = blue, blood = red, sun = yellow"
)
_OPPOSITES = _pairs(
    "hot = cold, big = small, fast = slow, up = down, happy = sad, day = night, young = old, wet = dry, open = closed, full = empty, "
    "light = dark, left = right, hard = soft, high = low, loud = quiet, rich = poor, early = late, strong = weak, clean = dirty, "
    "long = short, near = far, good = bad, black = white, first = last, begin = end, love = hate, win = lose, push = pull"
)
_OPPOSITES |= {y: x for x, y in _OPPOSITES.items()}
_ORDERED = (
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "January February March April May June July August September October November December".split(),
)
_NEXT = {week[i]: week[(i + 1) % len(week)] for week in _ORDERED for i in range(len(week))}
_PRODUCTS = _pairs(
    "milk = cows, honey = bees, eggs = hens, wool = sheep, bread = flour, paper = wood, wine = grapes, cheese = milk, butter = milk, "
    "glass = sand, chocolate = cocoa beans, ketchup = tomatoes"
)
_WORKPLACES = _pairs(
    "teacher = a school, doctor = a hospital, nurse = a hospital, baker = a bakery, farmer = a farm, cook = a kitchen, "
    "librarian = a library, pilot = a plane, sailor = a ship, actor = a theater, scientist = a laboratory, waiter = a restaurant"
)
_HOMES = _pairs(
    "bird = a nest, bee = a hive, spider = a web, fish = the water, camel = the desert, penguin = the snow, rabbit = a burrow, "
    "horse = a stable, lion = the savanna, monkey = the jungle, bear = a cave, beaver = a lodge, whale = the sea"
)
_COUNTS = _pairs(
    "days in a week = seven, months in a year = twelve, hours in a day = twenty-four, minutes in an hour = sixty, "
    "seconds in a minute = sixty, days in a year = 365, sides of a triangle = three, sides of a square = four, wheels on a car = four, "
    "wheels on a bicycle = two, fingers on a hand = five, seasons in a year = four, letters in the alphabet = twenty-six, "
    "colors of the rainbow = seven, planets in the solar system = eight, strings on a violin = four, legs of a spider = eight, "
    "eggs in a dozen = twelve, continents = seven, cents in a dollar = one hundred"
)
_TIMES = {f"{a} times {b}": str(a * b) for a in range(11) for b in range(11)}

RELATIONS = {
    "capital": Relation(
        _CAPITALS,
        ("What is the capital of {x}?", "What's the capital of {x}?", "Which city is the capital of {x}?", "Name the capital of {x}.",
         "Tell me the capital of {x}.", "Do you know the capital of {x}?", "What is the capital city of {x}?", "{x}'s capital is which city?",
         "Can you tell me the capital of {x}?", "I forgot the capital of {x}. What is it?"),
        "The capital of {x} is {y}.",
    ),
    "sound": Relation(
        _SOUNDS,
        ("What sound does {ax} make?", "What does {ax} say?", "Which sound does {ax} make?", "Tell me the sound of {ax}.",
         "How does {ax} sound?", "What noise does {ax} make?", "What sound do you hear from {ax}?"),
        "{Ax} says {y}.",
    ),
    "baby": Relation(
        _BABIES,
        ("What is a baby {x} called?", "What do you call a baby {x}?", "What is the name for a baby {x}?", "What is a young {x} called?",
         "How do you call a baby {x}?", "Tell me what a baby {x} is called."),
        "A baby {x} is called a {y}.",
    ),
    "legs": Relation(
        _LEGS,
        ("How many legs does {ax} have?", "How many legs has {ax}?", "Tell me how many legs {ax} has.", "What number of legs does {ax} have?",
         "Do you know how many legs {ax} has?"),
        "{Ax} has {y} legs.",
    ),
    "color": Relation(
        _COLORS,
        ("What color is {tx}?", "What is the color of {tx}?", "Which color is {tx}?", "Tell me the color of {tx}.", "Which color does {tx} have?",
         "What colour is {tx}?", "Do you know the color of {tx}?"),
        "{Tx} is {y}.",
    ),
    "opposite": Relation(
        _OPPOSITES,
        ("What is the opposite of {x}?", "What's the opposite of {x}?", "Tell me the opposite of {x}.", "Give me the opposite of {x}.",
         "Which word is the opposite of {x}?", "What is the antonym of {x}?", "Name the opposite of the word {x}.",
         "Which word means the opposite of {x}?"),
        "The opposite of {x} is {y}.",
    ),
    "next": Relation(
        _NEXT,
        ("What comes after {x}?", "What comes right after {x}?", "Which one comes after {x}?", "What follows {x}?", "What is next after {x}?",
         "Tell me what comes after {x}."),
        "{y} comes after {x}.",
    ),
    "source": Relation(
        _PRODUCTS,
        ("Where does {x} come from?", "What is the source of {x}?", "Tell me where {x} comes from.", "What gives us {x}?",
         "Where do we get {x} from?"),
        "We get {x} from {y}.",
    ),
    "workplace": Relation(
        _WORKPLACES,
        ("Where does {ax} work?", "What is the workplace of {ax}?", "Tell me where {ax} works.", "In which place does {ax} work?",
         "Where would you find {ax} at work?"),
        "{Ax} works in {y}.",
    ),
    "home": Relation(
        _HOMES,
        ("Where does {ax} live?", "What is the home of {ax}?", "Where is the home of {ax}?", "Tell me where {ax} lives.",
         "In which place does {ax} live?"),
        "{Ax} lives in {y}.",
    ),
    "count": Relation(
        _COUNTS,
        ("How many {x}?", "What is the number of {x}?", "Tell me the number of {x}.", "Do you know the number of {x}?",
         "What is the count of {x}?"),
        "The number of {x} is {y}.",
    ),
    "times": Relation(
        _TIMES,
        ("What is {x}?", "What's {x}?", "How much is {x}?", "Calculate {x}.", "{x}", "{x} =", "Compute {x}.", "What does {x} make?",
         "Multiply: {x}.", "Work out {x}.", "Tell me what {x} is.", "Can you tell me what {x} is?"),
        "{x} = {y}.",
    ),
}  # fmt: skip
_WEIGHTS = {"capital": 4, "opposite": 3, "times": 6, "next": 2, "count": 2, "color": 2}


def draw(rng: Random) -> Example:
    """A fact and one way to ask for it."""
    name = rng.choices(list(RELATIONS), weights=[_WEIGHTS.get(name, 1) for name in RELATIONS])[0]
    relation = RELATIONS[name]
    x, y = rng.choice(list(relation.entries.items()))
    question = rng.choice(relation.questions)
    key = f"{x}|{question}"
    answer = _fill(relation.answer, x, y)
    if name == "times":
        answer = answer.replace("times", "x")
        x = x.replace("times", rng.choice(("times", "*", "x", "times")))
    return ask(KIND, casual(rng, _fill(question, x, y)), answer, key)


def _fill(pattern: str, x: str, y: str) -> str:
    article = f"the {x}" if x in ("sky", "sun") else x if x in _UNCOUNTED else an(x)
    verb_phrase = _COUNT_QUESTIONS.get(x.split(" ")[0], "are there") if pattern == "How many {x}?" else ""
    if verb_phrase:
        return _how_many(x, verb_phrase)
    filled = pattern.format(x=x, y=y, ax=an(x), Ax=an(x).capitalize(), tx=article, Tx=article[0].upper() + article[1:])
    return filled


_UNCOUNTED = ("grass", "snow", "milk", "coal", "chocolate", "blood")
_COUNT_QUESTIONS = {"continents": "are there", "sides": "does", "wheels": "does", "fingers": "does", "strings": "does", "legs": "does"}


def _how_many(x: str, verb_phrase: str) -> str:
    if verb_phrase == "are there" and " " in x:
        noun, place = x.split(" ", 1)
        return f"How many {noun} are {place.replace('of the', 'in the')}?" if place.startswith("in") else f"How many {noun} are there?"
    if verb_phrase == "are there":
        return f"How many {x} are there?"
    noun, owner = x.replace(" on ", " of ").split(" of ")
    return f"How many {noun} does {owner} have?"
