"""What rank 0 tells the other ranks; they never answer, as each step shows whether they follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from handlers.engine.parallel.plans import Head
from handlers.engine.process.frames import FrameReader, Plain, Row, encode_frame


@dataclass(frozen=True, slots=True)
class Load(Plain):
    """First of all: which rank of how many this is, and the ``EngineSource`` of the handler that loads its share, as plain data."""

    rank: int
    num_ranks: int
    source: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Choose(Plain):
    """Choose a runner of this Capacity."""

    num_blocks: int
    max_model_len: int


@dataclass(frozen=True, slots=True)
class Run:
    """Run a step: what ``PlanSender.pack`` made of its plan. ``num_exchanges``: how many came before it, if all are in step."""

    num_exchanges: int
    heads: Sequence[Head]
    ids: Sequence[int]

    def pack(self) -> tuple[Row, Sequence[int]]:
        """Return what travels as JSON, and the ids."""
        return (self.num_exchanges, *self.heads), self.ids

    @classmethod
    def unpack(cls, row: Row, token_ids: list[int]) -> Run:
        """Return the message of which ``pack`` gave these."""
        num_exchanges, *heads = row
        return cls(num_exchanges, heads, token_ids)


@dataclass(frozen=True, slots=True)
class Resize(Plain):
    """Have other blocks: the arguments of ``ResizableRunner.resize``."""

    num_blocks: int
    max_model_len: int


@dataclass(frozen=True, slots=True)
class Reset(Plain):
    """Forget all sequences."""


Order = Load | Choose | Run | Resize | Reset
_KINDS: tuple[type[Order], ...] = (Load, Choose, Run, Resize, Reset)


def encode_order(order: Order) -> bytes:
    """Return the frame of one order."""
    return encode_frame(order, _KINDS)


def order_reader() -> FrameReader[Order]:
    """Return what cuts the stream into orders."""
    return FrameReader(_KINDS)
