"""The plots of the stories, read from `plots.txt`.

A plot starts with `#` and the themes it can be asked for by. Then come three paragraphs, apart by a blank line, of one sentence a line.
Variants are separated by `|`, and `{slots}` are filled in by the story.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

Variants = tuple[str, ...]


@dataclass(frozen=True)
class Plot:
    """What may be asked for (`themes`), and the sentences of each paragraph in their variants."""

    themes: Variants
    paragraphs: tuple[tuple[Variants, ...], ...]


@cache
def plots() -> tuple[Plot, ...]:
    """All plots, in the order of the file."""
    text = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").strip()
    return tuple(_plot(block) for block in text.removeprefix("# ").split("\n\n# "))


def _plot(block: str) -> Plot:
    themes, body = block.split("\n", 1)
    paragraphs = (paragraph.splitlines() for paragraph in body.split("\n\n"))
    return Plot(_variants(themes), tuple(tuple(_variants(line) for line in lines) for lines in paragraphs))


def _variants(line: str) -> Variants:
    return tuple(line.split(" | "))
