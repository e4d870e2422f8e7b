"""The word lists and small grammar helpers that the kinds of examples share."""

from random import Random


def split_words(text: str) -> tuple[str, ...]:
    """The words of a text, which reads better than a long tuple of quoted words."""
    return tuple(text.split())


HER_NAMES = split_words(
    "Anna Mia Lily Rosa Ella Nora Ivy Luna Clara Emma Zoe Ruby Hana Maya Sara Alice Julia Grace Olivia Lucy Eva Nina Tara Daisy "
    "Hazel Maria Sofia Carmen Leila Amara Yuki Priya Ingrid Fatima Molly Wendy Holly Mary Kate Jane Laura Bella Poppy Willow Dora"
)
HIS_NAMES = split_words(
    "Tom Max Ben Leo Sam Finn Oscar Hugo Otto Jack Noah Omar Ravi Kenji Milo Theo Felix Adam Paul Peter John David Liam Ethan "
    "Lucas Daniel Henry Oliver Marco Ivan Pedro Ali Hassan Bruno Carl Eric George Simon Victor Walter Jasper Pip Toby Rusty "
    "Barney"
)
NAMES = HER_NAMES + HIS_NAMES
CITIES = split_words(
    "Paris London Berlin Madrid Rome Tokyo Cairo Lima Oslo Vienna Lisbon Dublin Athens Prague Warsaw Sydney Toronto Boston Chicago "
    "Nairobi Delhi Mumbai Seoul Beijing Geneva Zurich Hamburg Milan Porto Bergen Austin Denver Seattle Kyoto Havana Quito"
)
JOBS = split_words(
    "teacher doctor nurse baker farmer pilot painter singer writer cook driver engineer gardener dentist lawyer carpenter "
    "plumber scientist musician librarian"
)
COLORS = split_words("red blue green yellow orange purple black white pink brown gray gold")
FOODS = split_words("pizza soup rice bread cheese pasta salad cake honey apples bananas grapes carrots noodles pancakes cookies")
SPORTS = split_words("football tennis basketball chess golf hockey volleyball baseball rugby badminton")
ANIMALS = split_words(
    "cat dog fox bear rabbit mouse owl frog turtle hedgehog squirrel wolf lion tiger elephant monkey penguin duck hen pig cow horse "
    "sheep goat deer whale dolphin bee ant butterfly snail parrot crow sparrow swan beaver otter koala panda kangaroo camel giraffe "
    "zebra crocodile snake spider bat badger donkey seal"
)
THINGS = split_words(
    "ball kite hat book lamp key bell boat basket drum ring map clock cup scarf button coin flute lantern mirror ribbon shell spoon "
    "umbrella bag box chair table bicycle bottle blanket brush candle camera doll feather guitar jar kettle ladder pencil pillow"
)

_ONSETS = split_words("b br d dr f g gr h j k kl l m n p pl r s sh t tr v w z")
_VOWELS = split_words("a e i o u oo ee ai")
_CODAS = ("", "", "", "n", "r", "l", "s", "k", "m", "x", "th", "nd")


def invented_word(rng: Random) -> str:
    """A pronounceable word that no list holds: it makes the model copy from the prompt instead of recalling."""
    syllables = (rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(rng.choice((1, 2, 2, 3))))
    return "".join(syllables) + rng.choice(_CODAS)


def person(rng: Random) -> str:
    """A first name, one in four of them invented."""
    return invented_word(rng).capitalize() if rng.random() < 0.25 else rng.choice(NAMES)


def pronoun(name: str) -> str:
    """The pronoun that stories use for a name."""
    return "she" if name in HER_NAMES or name.endswith("a") else "he"


def an(noun: str) -> str:
    """The noun with its indefinite article."""
    return f"{'an' if noun[0].lower() in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of a regular noun (and of the irregular ones in the lists)."""
    irregular = {"mouse": "mice", "wolf": "wolves", "sheep": "sheep", "deer": "deer"}
    if noun in irregular:
        return irregular[noun]
    if noun.endswith(("s", "x", "sh", "ch")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def casual(rng: Random, text: str) -> str:
    """The text as people type it: sometimes without a capital or the last full stop, sometimes with a please."""
    roll = rng.random()
    if roll < 0.10 and text[-1] in ".?":
        text = text[:-1]
    elif roll < 0.18:
        text = text[0].lower() + text[1:]
    elif roll < 0.26 and text[-1] in ".?":
        text = text[0].lower() + text[1:-1]
    elif roll < 0.32 and text[-1] == ".":
        text = f"Please {text[0].lower()}{text[1:]}"
    elif roll < 0.38 and text[-1] == ".":
        text = f"{text[:-1]}, please."
    return text


def favoring_first(rng: Random, options: tuple[str, ...]) -> str:
    """One of the options, the first one about half of the time.

    Text that is uniform over its variants leaves a model with ties to break; a clear favorite makes greedy decoding stable
    while sampling still finds the others.
    """
    return options[0] if rng.random() < 0.45 else rng.choice(options)
