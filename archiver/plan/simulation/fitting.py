"""The smallest linear model with non-negative coefficients that predicts measurements well."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

_GOOD_ENOUGH = 0.01
"""How much a smaller model's error may be above the best one's: much less than a measurement's own."""
_SINGULAR = 1e-9


def fit_non_negative(rows: Sequence[Sequence[float]], values: Sequence[float]) -> list[float]:
    """Return a coefficient for each column of ``rows``, so that their sums come near ``values``, which are positive.

    The error is the root mean square of the relative errors. Every set of columns is tried (there are few, so that this is the exact
    non-negative least squares), and the first good one wins: those with the first column go before those without it, then small sets before
    large ones, then those of earlier columns.
    """
    scaled = [[number / value for number in row] for row, value in zip(rows, values, strict=True)]
    fits = list(_fits(scaled))
    best = min(error for error, _ in fits)
    return next(coefficients for error, coefficients in fits if error <= best + _GOOD_ENOUGH)


def _fits(rows: Sequence[Sequence[float]]) -> Iterator[tuple[float, list[float]]]:
    """Yield error and coefficients of every set of columns that can be told apart, in order of preference; all values are 1."""
    num_columns = len(rows[0])
    sizes = range(1, min(num_columns, len(rows)) + 1)
    sets = [columns for size in sizes for columns in combinations(range(num_columns), size)]
    for columns in sorted(sets, key=lambda columns: 0 not in columns):
        solution = _least_squares([[row[column] for column in columns] for row in rows])
        if solution is None or min(solution) < 0:
            continue
        coefficients = [0.0] * num_columns
        for column, coefficient in zip(columns, solution, strict=True):
            coefficients[column] = coefficient
        yield _error(rows, coefficients), coefficients


def _error(rows: Sequence[Sequence[float]], coefficients: Sequence[float]) -> float:
    return math.sqrt(sum((_dot(row, coefficients) - 1) ** 2 for row in rows) / len(rows))


def _dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum((a * b for a, b in zip(left, right, strict=True)), start=0.0)


def _least_squares(rows: Sequence[Sequence[float]]) -> list[float] | None:
    """Solve ``rows · x = 1`` by the normal equations of columns of length one; None if the columns depend on each other."""
    columns = list(zip(*rows, strict=True))
    lengths = [math.hypot(*column) for column in columns]
    if not all(lengths):
        return None
    units = [[number / length for number in column] for column, length in zip(columns, lengths, strict=True)]
    solution = _solve([[*(_dot(unit, other) for other in units), sum(unit)] for unit in units])
    return solution and [number / length for number, length in zip(solution, lengths, strict=True)]


def _solve(system: list[list[float]]) -> list[float] | None:
    """Solve a positive definite system, each row with its right-hand side, by elimination (no pivoting needed); None if it is singular."""
    for index, pivot in enumerate(system):
        if pivot[index] < _SINGULAR:
            return None
        for row in system[index + 1 :]:
            factor = row[index] / pivot[index]
            row[index:] = [number - factor * above for number, above in zip(row[index:], pivot[index:], strict=True)]
    solution: list[float] = []
    for index in reversed(range(len(system))):
        *coefficients, value = system[index][index + 1 :]
        solution.insert(0, (value - _dot(coefficients, solution)) / system[index][index])
    return solution
