"""What models are made of: parts, each of which says what its weights are and what it keeps of a sequence."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from archiver.plan.model.facts import CacheLayer, Role


@dataclass(frozen=True)
class Weight:
    """``count`` equal matrices of ``outputs`` rows and ``inputs`` columns; a vector, which is never quantized, has one column."""

    role: Role
    outputs: int
    inputs: int = 1
    count: int = 1

    @property
    def num_elements(self) -> int:
        """Elements of all ``count``."""
        return self.outputs * self.inputs * self.count


class Part(Protocol):
    """A part of a model, such as one layer's attention."""

    def weights(self) -> Iterable[Weight]:
        """Yield what it is made of."""

    def cache(self) -> Iterable[CacheLayer]:
        """Yield what it keeps of a sequence; nothing for most."""


@dataclass(frozen=True)
class Plain:
    """A part that keeps nothing: embeddings, norms, heads."""

    made_of: tuple[Weight, ...]

    def weights(self) -> Iterable[Weight]:
        """Yield what it is made of."""
        return self.made_of

    def cache(self) -> Iterable[CacheLayer]:
        """Yield nothing."""
        return ()


def linear(role: Role, outputs: int, inputs: int, *, bias: bool = False, count: int = 1) -> Iterator[Weight]:
    """Yield the weight of ``count`` linear layers, and their biases."""
    yield Weight(role, outputs, inputs, count)
    if bias:
        yield Weight(role, outputs, count=count)


def norm(width: int, vectors: int, count: int = 1) -> Iterator[Weight]:
    """Yield ``count`` norms: RMS norms have one vector, layer norms two with their bias, some none."""
    if vectors and count:
        yield Weight(Role.NORM, width * vectors, count=count)
