"""The sampling parameters that ``/set`` knows: names, types and ranges, which are those of the server's chat completions."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any, Protocol

from archiver.errors import UsageError

Value = float | int | str | list[str]


class Parameter(Protocol):
    """Reads a value as it is typed; raises ValueError with what it should be."""

    def read(self, text: str) -> Value: ...


@dataclass(frozen=True)
class Number:
    """A number from ``low`` to ``high``, both included unless ``above_low``."""

    kind: type[float] | type[int]
    low: float
    high: float
    above_low: bool = False

    def read(self, text: str) -> Value:
        """Return the number that ``text`` spells."""
        try:
            value = self.kind(text)
        except ValueError:
            raise ValueError(str(self)) from None
        if not self.low <= value <= self.high or (self.above_low and value == self.low):  # false for NaN, too
            raise ValueError(str(self))
        return value

    def __str__(self) -> str:
        kind = "an integer" if self.kind is int else "a number"
        low = f" {'above' if self.above_low else 'from'} {self.low:g}" if self.low >= -_MOST else ""
        high = f" to {self.high:g}" if self.high < _MOST else ""
        return f"{kind}{low}{high}"


class Strings:
    """One string as it is typed, or JSON: a string, or a list of them."""

    def read(self, text: str) -> Value:
        """Return the string, or the list of strings."""
        try:
            value: Any = json.loads(text)
        except ValueError:
            return text
        if not isinstance(value, str) and not (isinstance(value, list) and all(isinstance(string, str) for string in value)):
            return text
        if not value or not all(value):
            raise ValueError('text, or JSON: ["one", "another\\n"]')
        strings: str | list[str] = value
        return strings


_MOST = 2**31 - 1
PARAMETERS: dict[str, Parameter] = {
    "temperature": Number(float, 0, 2),
    "top_p": Number(float, 0, 1, above_low=True),
    "top_k": Number(int, -1, _MOST),
    "min_p": Number(float, 0, 1),
    "max_tokens": Number(int, 1, _MOST),
    "seed": Number(int, -(2**63), 2**63 - 1),
    "stop": Strings(),
    "presence_penalty": Number(float, -2, 2),
    "frequency_penalty": Number(float, -2, 2),
    "repetition_penalty": Number(float, 0, 10, above_low=True),
}


def read_setting(name: str, text: str) -> Value:
    """Return the value of the parameter ``name`` that ``text`` spells; raises UsageError that says what it should be."""
    parameter = PARAMETERS.get(name)
    if parameter is None:
        raise UsageError(f"no parameter {name!r}: {nearest(name, list(PARAMETERS))}")
    try:
        return parameter.read(text)
    except ValueError as error:
        raise UsageError(f"{name} is {error}, not {text!r}") from None


def nearest(wrong: str, valid: list[str]) -> str:
    """Return a hint to what was meant instead of ``wrong``."""
    found = difflib.get_close_matches(wrong, valid, n=1)
    return f"did you mean {found[0]!r}?" if found else f"there are {', '.join(valid)}"
