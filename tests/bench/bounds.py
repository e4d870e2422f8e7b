"""What this machine allows at most: its time for a model's matrices alone, and for reading the weights from memory.

    python -m tests.bench.bounds m135

Attention, norms, sampling, scheduling, HTTP and the clients are left out: no server can reach these figures with ``F.linear``. One with a
better kernel can pass the operators' bound, and one whose weights stay in the processor's cache the memory's.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from tests.bench.checkpoint import find_checkpoint
from tests.bench.models import CACHE, Shape
from tests.bench.workload import Workload

_ROWS = (1, 8, 32, 128, 512)
_PROMPT_ROWS = 512  # prompts are computed in chunks at the best rate
_MEASURE_S = 0.5
_READ_BYTES = 1 << 29


@dataclass(frozen=True)
class Bounds:
    """``linears_ms`` and ``head_ms``: bf16 ``F.linear`` over all layers' matrices, and over the LM head, by number of rows."""

    linears_ms: dict[int, float]
    head_ms: dict[int, float]
    weight_bytes: int
    read_gb_per_s: float

    def operator_tokens_per_s(self, streams: int, workload: Workload) -> float:
        """Return output tokens a second if nothing but matrices took time; each output token carries its share of the prompt."""
        decode_ms = (self.linears_ms[streams] + self.head_ms[streams]) / streams
        prompt_tokens = workload.prompt_tokens.mean / workload.output_tokens.mean
        return 1000 / (decode_ms + prompt_tokens * self.linears_ms[_PROMPT_ROWS] / _PROMPT_ROWS)

    def memory_tokens_per_s(self, streams: int) -> float:
        """Return tokens a second if nothing but reading the weights, once a step, took time."""
        return streams * self.read_gb_per_s * 1e9 / self.weight_bytes


def measure_bounds(shape: Shape, streams: Sequence[int]) -> Bounds:
    """Time the operators on all cores; takes seconds, in which nothing else should run."""
    import torch
    from torch.nn.functional import linear

    # As servers do it: the matrices that have the same input as one.
    query, key, value, output, gate, up, down = shape.linears
    fused = [(query[0] + key[0] + value[0], shape.hidden), output, (gate[0] + up[0], shape.hidden), down]
    layers = [torch.randn(size, dtype=torch.bfloat16) for _ in range(shape.layers) for size in fused]
    head = torch.randn(shape.vocabulary, shape.hidden, dtype=torch.bfloat16)

    def time_ms(matrices: Sequence[torch.Tensor], rows: int) -> float:
        inputs = {matrix.shape[1]: torch.randn(rows, matrix.shape[1], dtype=torch.bfloat16) for matrix in matrices}
        return 1000 * _median_s(lambda: [linear(inputs[matrix.shape[1]], matrix) for matrix in matrices])

    with torch.inference_mode():
        rows = sorted({*_ROWS, *streams})
        linears_ms = {each: time_ms(layers, each) for each in rows}
        head_ms = {each: time_ms([head], each) for each in rows}
        memory = torch.ones(_READ_BYTES // 8, dtype=torch.int64)
        read_gb_per_s = _READ_BYTES / _median_s(memory.sum) / 1e9
    return Bounds(linears_ms, head_ms, 2 * shape.num_parameters, read_gb_per_s)


def _median_s(work: Callable[[], object]) -> float:
    """Return the median time of repeats for half a second, after one that does not count."""
    work()
    times_s: list[float] = []
    while sum(times_s) < _MEASURE_S or len(times_s) < 5:
        started_s = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - started_s)
    return statistics.median(times_s)


def bounds_table(bounds: Bounds) -> Table:
    """Return the operators' times by number of rows."""
    table = Table("rows", "linears ms", "LM head ms", title=f"bf16 F.linear; memory is read at {bounds.read_gb_per_s:.0f} GB/s")
    for rows, linears_ms in bounds.linears_ms.items():
        table.add_row(str(rows), f"{linears_ms:.1f}", f"{bounds.head_ms[rows]:.1f}")
    return table


def main(model: str, cache: Annotated[Path, typer.Option(help="where checkpoints are kept")] = CACHE) -> None:
    """Measure and print."""
    Console().print(bounds_table(measure_bounds(Shape.of(find_checkpoint(model, cache)), ())))


if __name__ == "__main__":
    typer.run(main)
