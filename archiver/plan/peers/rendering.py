"""A deployment in the words of one server."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Options: TypeAlias = Mapping[str, str | int | float | bool | None]

# Shares are printed in steps of 0.0001, 8 MB of 80 GB: finer ones would promise more than any prediction of memory holds.
_STEPS = 10_000


@dataclass(frozen=True)
class Rendering:
    """A ``command`` with its ``environment``, and ``files`` by their paths, which it reads.

    ``fraction`` is the share of memory that the command names, None if it names none, and ``fraction_meaning`` is of what. ``notes`` say,
    in sentences, what this server does otherwise or cannot be told.
    """

    command: tuple[str, ...]
    fraction_meaning: str
    fraction: float | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def shell(self) -> str:
        """The command as one line for a shell."""
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.environment.items()), shlex.join(self.command)])


def flags(options: Options) -> tuple[str, ...]:
    """Return options as words of a command: True is an option without a value; None and False are left out."""
    words: list[str] = []
    for option, value in options.items():
        if value is not None and value is not False:
            words += [option] if value is True else [option, str(value)]
    return tuple(words)


def beyond_one(number: int) -> int | None:
    """Return a degree of parallelism; None for none, which is every server's default."""
    return number if number > 1 else None


def round_down(fraction: float) -> float:
    """Return a share as it is printed, no more than it is."""
    return math.floor(fraction * _STEPS) / _STEPS


def round_up(fraction: float) -> float:
    """Return a share as it is printed, no less than it is, and at most all."""
    return min(math.ceil(fraction * _STEPS) / _STEPS, 1)
