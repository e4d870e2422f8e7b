"""What reads one format: which tensors make a quantized layer, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from handlers.native.quantized_matrix import QuantizedMatrix


@dataclass(frozen=True)
class Reader:
    """Reads the linear layers of one format. Without state, so safe from several threads.

    A layer ``L`` is quantized if there is a tensor ``L.M`` for an M in ``marks``; its weight is then made of the tensors ``L.P`` for P in
    ``parts``. ``read`` takes those by P, and raises ConfigError or ValueError for what it cannot express.
    """

    marks: frozenset[str]
    parts: frozenset[str]
    read: Callable[[Mapping[str, Tensor]], QuantizedMatrix]
