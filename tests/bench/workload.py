"""What a benchmark asks for: seeded mixes of prompt and output lengths.

The prompts of one seed are the same wherever they are drawn, so that every contestant of a run answers the same ones, and another seed's
have nothing in common with them, so that no cache helps.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from string import ascii_lowercase
from typing import Protocol

_ALPHABET = ascii_lowercase + 5 * " "
_CHARS_PER_TOKEN = 12  # more than any tokenizer puts into a token of random letters


class Tokenizer(Protocol):
    """Text to token ids and back, without special tokens."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, token_ids: list[int]) -> str: ...


@dataclass(frozen=True)
class Job:
    """One request: a prompt, and how many tokens to generate."""

    prompt: str
    num_output_tokens: int


@dataclass(frozen=True)
class Lengths:
    """Numbers of tokens from ``low`` to ``high``, both included, log-uniform: as many from 16 to 32 as from 128 to 256."""

    low: int
    high: int

    @classmethod
    def parse(cls, text: str) -> Lengths:
        """Read ``LOW:HIGH``, or one number; raise ValueError."""
        low, _, high = text.partition(":")
        lengths = cls(int(low), int(high or low))
        if not 1 <= lengths.low <= lengths.high:
            raise ValueError(f"{text!r} is no range of lengths: write LOW:HIGH with 1 <= LOW <= HIGH")
        return lengths

    def draw(self, rng: random.Random) -> int:
        """Return one length."""
        ratio = (self.high + 1) / self.low
        return min(int(self.low * ratio ** rng.random()), self.high)

    @property
    def mean(self) -> float:
        """What many draws come to on average."""
        return (self.high + 1 - self.low) / math.log((self.high + 1) / self.low)

    def __str__(self) -> str:
        return f"{self.low}:{self.high}" if self.low < self.high else str(self.low)


@dataclass(frozen=True)
class Workload:
    """A mix of requests whose prompt and output lengths are independent of each other."""

    prompt_tokens: Lengths
    output_tokens: Lengths

    def jobs(self, count: int, seed: str, tokenizer: Tokenizer) -> list[Job]:
        """Draw ``count`` requests; equal seeds give equal requests.

        A prompt that is encoded again may come out a token shorter or longer than was drawn, where the cut went through a word.
        """
        rng = random.Random(seed)
        return [Job(_text(self.prompt_tokens.draw(rng), rng, tokenizer), self.output_tokens.draw(rng)) for _ in range(count)]


def _text(num_tokens: int, rng: random.Random, tokenizer: Tokenizer) -> str:
    letters = "".join(rng.choices(_ALPHABET, k=_CHARS_PER_TOKEN * num_tokens))
    return tokenizer.decode(tokenizer.encode(letters)[:num_tokens])
