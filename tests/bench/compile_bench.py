"""A decode step of the lean runner as it is and compiled, and of the kernels in C where they fit, in turns.

    python -m tests.bench.compile_bench --shapes m15,m135 --turns 60

Prints milliseconds a step: the least of all turns, the median in brackets, and how many times faster that is than the lean runner's own
layers (least by least). Weights are random; every row has a context of 160 tokens. Compilations are not taken from a cache, and timed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from transformers import LlamaForCausalLM

from handlers.engine.compatibility import adopt
from handlers.engine.compiled.compiler import compile_package
from handlers.engine.compiled.layers import CompiledLayers
from handlers.engine.compiled.swap import load_layers, packages_of
from handlers.engine.decoder_parts import DecoderParts, take_apart
from handlers.engine.lean_runner import Layers, LeanRunner
from handlers.engine.native_runner import NativeRunner, fits
from handlers.engine.runner import Runner
from handlers.engine.scheduler import Chunk, StepPlan
from tests.bench.models import SHAPES

_BLOCK, _CONTEXT, _MAX_LEN, _NUM_BLOCKS = 16, 160, 1024, 512
_ROWS = (1, 8, 32)
_WARM_UP_TURNS = 3


@dataclass(frozen=True)
class Contestant:
    """A way to compute a step: a runner, and with which layers where it is the lean one."""

    name: str
    runner: Runner
    layers: Layers | None = None

    def step_ms(self, plan: StepPlan) -> float:
        """Return how long a step takes."""
        if isinstance(self.runner, LeanRunner) and self.layers is not None:
            self.runner.layers = self.layers
        started = time.perf_counter()
        self.runner.run(plan)
        return (time.perf_counter() - started) * 1e3


def contestants(shape: str, dtype: torch.dtype) -> Iterator[Contestant]:
    """Yield the lean runner as it is, then with compiled layers, then the kernels in C."""
    parts = _decoder(shape, dtype)
    lean = LeanRunner(parts, num_blocks=_NUM_BLOCKS, block_tokens=_BLOCK)
    yield Contestant("lean", lean, lean.layers)
    packages = packages_of(lean)
    assert packages is not None
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        files = {shape: compile_package(package, Path(scratch)) for shape, package in packages.items()}
        print(f"\n{shape}, {dtype}: compiled in {time.perf_counter() - started:.0f} s", flush=True)
        layers = load_layers(lean, files)
    assert isinstance(layers, CompiledLayers)
    yield Contestant("compiled", lean, layers)
    if fits(parts, _BLOCK):
        yield Contestant("C kernels", NativeRunner(parts, num_blocks=_NUM_BLOCKS, block_tokens=_BLOCK))


def _decoder(shape: str, dtype: torch.dtype) -> DecoderParts:
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM._from_config(SHAPES[shape].config(), dtype=dtype).eval()
    parts = take_apart(model, adopt(model).scorings, _MAX_LEN)
    assert parts is not None
    return parts


def _decode(rows: int) -> StepPlan:
    blocks = _CONTEXT // _BLOCK + 1
    return StepPlan(tuple(Chunk(str(i), _CONTEXT, (5 + i,), list(range(blocks * i, blocks * (i + 1))), True) for i in range(rows)))


def _cell(times_ms: Sequence[float], base_ms: Sequence[float]) -> str:
    return f"{min(times_ms):.2f} [{statistics.median(times_ms):.2f}] {min(base_ms) / min(times_ms):.2f}x"


def main(
    shapes: Annotated[str, typer.Option(help=f"of {', '.join(SHAPES)}")] = "m15,m135",
    dtypes: Annotated[str, typer.Option(help="of torch's")] = "bfloat16,float32",
    turns: Annotated[int, typer.Option(help="steps of each contestant, one by one")] = 60,
    threads: Annotated[int | None, typer.Option(help="CPU threads; torch's own number by default")] = None,
) -> None:
    """Print a table in Markdown for each shape and dtype."""
    torch.set_num_threads(threads or torch.get_num_threads())
    for shape in shapes.split(","):
        for dtype in dtypes.split(","):
            field = list(contestants(shape, getattr(torch, dtype)))
            print(f"| ms a step | {' | '.join(f'{rows} row(s)' for rows in _ROWS)} |\n|{'---|' * (len(_ROWS) + 1)}")
            times: dict[str, list[str]] = {each.name: [] for each in field}
            for plan in map(_decode, _ROWS):
                rows = [[each.step_ms(plan) for each in field] for _ in range(_WARM_UP_TURNS + turns)][_WARM_UP_TURNS:]
                columns = list(zip(*rows, strict=True))
                for each, column in zip(field, columns, strict=True):
                    times[each.name].append(_cell(column, columns[0]))
            for name, cells in times.items():
                print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
