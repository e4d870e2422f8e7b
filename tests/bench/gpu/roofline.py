"""The least time that steps and prompts can take: bytes over the bandwidth, or operations over the matrix rate, whichever is longer.

Counted is what no implementation can do without: a step reads every matrix and the keys and values of all sequences once; a token costs two
operations a weight, and attention two for each pair of numbers. See Williams et al., "Roofline" (2009).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from tests.bench.models import Shape

_MEASURE_S = 0.5
_ELEMENT_BYTES = 2  # bf16
# Large enough to fill a GPU and to pass by its cache; on a CPU this is a rehearsal.
_COPY_BYTES = {"cuda": 4 << 30, "cpu": 64 << 20}
_MATRIX_SIZE = {"cuda": 8192, "cpu": 512}


@dataclass(frozen=True)
class Ceilings:
    """What the device reaches at best: bytes read plus written by a copy, in GB/s, and operations of a bf16 matrix product, in TFLOP/s."""

    copy_gb_per_s: float
    matrix_tflops: float

    def least_s(self, num_bytes: float, num_operations: float) -> float:
        """Return the seconds that no work of so many bytes and operations stays below."""
        return max(num_bytes / (self.copy_gb_per_s * 1e9), num_operations / (self.matrix_tflops * 1e12))


@dataclass(frozen=True)
class Roofline:
    """A model's shape on a device with these ceilings."""

    shape: Shape
    ceilings: Ceilings

    @property
    def weight_bytes(self) -> int:
        """Matrices that a step reads."""
        return _ELEMENT_BYTES * self.shape.num_parameters

    @property
    def kv_token_bytes(self) -> int:
        """Keys and values of one token in all layers."""
        return 2 * _ELEMENT_BYTES * self.shape.layers * self.shape.kv_heads * (self.shape.hidden // self.shape.heads)

    def decode_s(self, streams: int, context: float) -> float:
        """Return the least time of a step that adds a token to each of ``streams`` sequences of ``context`` tokens."""
        attention = 4 * self.shape.layers * self.shape.hidden * context
        operations = streams * (2 * self.shape.num_parameters + attention)
        return self.ceilings.least_s(self.weight_bytes + streams * context * self.kv_token_bytes, operations)

    def prefill_operations(self, num_prompts: int, num_tokens: int) -> float:
        """Return what reading prompts of ``num_tokens`` takes; the LM head is needed for the last token of each, attention is causal."""
        head = self.shape.vocabulary * self.shape.hidden
        layers = self.shape.num_parameters - head
        attention = 2 * self.shape.layers * self.shape.hidden * num_tokens**2
        return num_prompts * (2.0 * layers * num_tokens + 2.0 * head + attention)

    def prefill_s(self, num_prompts: int, num_tokens: int) -> float:
        """Return the least time to the first tokens of prompts that are read together."""
        return self.ceilings.least_s(self.weight_bytes, self.prefill_operations(num_prompts, num_tokens))


def measure_ceilings(device: torch.device) -> Ceilings:
    """Time a large copy and a large matrix product of random numbers; takes seconds, in which nothing else should run."""
    source = torch.ones(_COPY_BYTES[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy_s = _median_s(lambda: target.copy_(source), device)
    size = _MATRIX_SIZE[device.type]
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device=device) for _ in range(2))
    product_s = _median_s(lambda: left @ right, device)
    return Ceilings(2 * source.nbytes / copy_s / 1e9, 2 * size**3 / product_s / 1e12)


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was asked to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _median_s(work: Callable[[], object], device: torch.device) -> float:
    """Return the median time of repeats for half a second, after three that do not count."""
    for _ in range(3):
        work()
    times_s: list[float] = []
    while sum(times_s) < _MEASURE_S or len(times_s) < 5:
        synchronize(device)
        started_s = time.perf_counter()
        work()
        synchronize(device)
        times_s.append(time.perf_counter() - started_s)
    return statistics.median(times_s)
