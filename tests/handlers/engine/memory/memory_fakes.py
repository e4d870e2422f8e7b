"""A device that does what a test says, and a runner that takes its memory from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch

from handlers.engine.scheduler import StepPlan
from handlers.memory_ledger import Interval, LedgerLine, MemoryLedger, Part

GIB = 1 << 30
MIB = 1 << 20
VOCAB_SIZE = 64
LAYERS = 4


class FakeDevice:
    """Memory that this process (``own``) and ``others`` have taken. ``largest_hole``: no allocation finds more in one piece.

    ``on_allocate`` is called before every allocation with its size: there a test has other processes come and go.
    """

    def __init__(
        self, total: int = 16 * GIB, *, kind: Literal["cuda", "cpu"] = "cuda", others: int = 0, largest_hole: int = 1 << 60
    ) -> None:
        self.kind: Literal["cuda", "cpu"] = kind
        self.name = "a GPU"
        self.total_bytes = total
        self.others = others
        self.largest_hole = largest_hole
        self.own = self.peak = 0
        self.on_allocate: Callable[[int], None] = lambda size: None
        self.num_releases = 0

    def free_bytes(self) -> int:
        return self.total_bytes - self.own - self.others

    def own_bytes(self) -> int:
        return self.own

    def reset_peak(self) -> None:
        self.peak = self.own

    def peak_bytes(self) -> int:
        return self.peak

    def release_unused(self) -> None:
        self.num_releases += 1

    def take(self, size: int) -> None:
        self.on_allocate(size)
        if size > min(self.free_bytes(), self.largest_hole):
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes")
        self.own += size
        self.peak = max(self.peak, self.own)

    def give(self, size: int) -> None:
        self.own -= size


class DeviceRunner:
    """A ResizableRunner over a FakeDevice: a step takes ``row_bytes`` a token, and a copy of one layer's blocks of what it reads."""

    vocab_size = VOCAB_SIZE

    def __init__(
        self,
        device: FakeDevice,
        *,
        weights: int = 2 * GIB,
        context: int = 500 * MIB,
        token_bytes: int = 128 << 10,
        row_bytes: int = 256 << 10,
    ) -> None:
        self.device = device
        self.weight_bytes = weights
        self.num_blocks, self.block_tokens, self.max_model_len = 8, 16, 4096
        self.token_bytes, self.row_bytes = token_bytes, row_bytes
        self.kv_bytes = 0
        self.plans: list[StepPlan] = []
        device.take(weights + context)
        self.resize(self.num_blocks, self.max_model_len)

    def resize(self, num_blocks: int, max_model_len: int) -> None:
        self.device.give(self.kv_bytes)
        self.kv_bytes = 0
        size = num_blocks * self.block_tokens * self.token_bytes
        if self.device.kind == "cuda":
            self.device.take(size)
        self.kv_bytes = size if self.device.kind == "cuda" else 0
        self.num_blocks, self.max_model_len = num_blocks, max_model_len

    def run(self, plan: StepPlan) -> torch.Tensor:
        self.plans.append(plan)
        rows = sum(len(chunk.token_ids) for chunk in plan.chunks)
        lengths = [len(chunk.block_ids) for chunk in plan.chunks]
        copied = max([*lengths, min(sum(lengths), self.num_blocks)])  # as ``lay_out`` bounds it
        size = rows * self.row_bytes + copied * self.block_tokens * self.token_bytes // LAYERS
        self.device.take(size)
        self.device.give(size)
        return torch.ones(sum(chunk.samples for chunk in plan.chunks), self.vocab_size)

    def reset(self) -> None:
        pass


def ledger(device: FakeDevice, **parts: Interval) -> MemoryLedger:
    """Return a plan for the device with some parts."""
    lines = tuple(LedgerLine(part_named(name), "as a test says", interval) for name, interval in parts.items())
    return MemoryLedger(device.kind, "what the planner calls it", device.total_bytes, lines)


def part_named(name: str) -> Part:
    return name  # type: ignore[return-value]
