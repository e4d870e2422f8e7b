"""A step of the decoder in C with plain and with packed weights, in turns: milliseconds at some numbers of rows.

    python -m tests.bench.kernel_bench --shape m135 --repeats 20

Weights are random, and quantized by rounding to nearest. Needs AVX512-BF16 and a C compiler.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from handlers.engine.compatibility import adopt
from handlers.engine.decoder_parts import take_apart
from handlers.engine.native_runner import NativeRunner, fits
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.native.huge_pages import HugePages
from handlers.native.packed_linear import PackedLinear
from handlers.native.quantized_matrix import QuantizedMatrix
from tests.bench.models import SHAPES
from tests.quantizers import to_4_bits, to_fp8, to_int8

_BLOCK, _CONTEXT, _MAX_LEN = 16, 160, 1024
_STEPS = {"1 row": 1, "8 rows": 8, "32 rows": 32}
QUANTIZERS: dict[str, Callable[[Tensor], QuantizedMatrix] | None] = {
    "bf16": None,
    "int8 by row": to_int8,
    "FP8 by row": to_fp8,
    "4 bits by 64": lambda weight: to_4_bits(weight, 64),
    "4 bits by 32": to_4_bits,
}


def make_runner(shape: str, quantize: Callable[[Tensor], QuantizedMatrix] | None) -> NativeRunner:
    """Return a runner of a random model, its head quantized, too."""
    torch.manual_seed(0)
    model: Any = LlamaForCausalLM._from_config(SHAPES[shape].config(), dtype=torch.bfloat16).eval()
    memory = HugePages()
    for name, module in list(model.named_modules()):
        if quantize and isinstance(module, nn.Linear):
            model.set_submodule(name, PackedLinear(quantize(module.weight.data), memory=memory))
    parts = take_apart(model, adopt(model).scorings, _MAX_LEN)
    if parts is None or not fits(parts, _BLOCK):
        raise typer.BadParameter("the kernels cannot run here: they need AVX512-BF16 and a C compiler")
    return NativeRunner(parts, num_blocks=1024, block_tokens=_BLOCK)


def _decode(rows: int) -> StepPlan:
    blocks = _CONTEXT // _BLOCK + 1
    return StepPlan(tuple(Chunk(str(i), _CONTEXT, (5 + i,), list(range(blocks * i, blocks * (i + 1))), True) for i in range(rows)))


def _time_ms(runner: NativeRunner, plan: StepPlan) -> float:
    started = time.perf_counter()
    runner.run(plan)
    return (time.perf_counter() - started) * 1e3


def main(
    shape: Annotated[str, typer.Option(help=", ".join(SHAPES))] = "m135",
    repeats: Annotated[int, typer.Option(help="turns; the least time of all counts")] = 20,
) -> None:
    """Print a table in Markdown."""
    runners = {name: make_runner(shape, quantize) for name, quantize in QUANTIZERS.items()}
    prompt = StepPlan((Chunk("prompt", 0, tuple(range(512)), list(range(512 // _BLOCK)), True),))
    plans = {name: _decode(rows) for name, rows in _STEPS.items()} | {"prompt of 512": prompt}
    print(f"| ms | {' | '.join(plans)} |\n|{'---|' * (len(plans) + 1)}")
    best = {name: dict.fromkeys(plans, float("inf")) for name in runners}
    for step, plan in plans.items():
        for _ in range(repeats if plan is not prompt else 4):
            for name, runner in runners.items():
                best[name][step] = min(best[name][step], _time_ms(runner, plan))
    for name, times in best.items():
        print(f"| {name} | {' | '.join(f'{time_ms:.1f}' for time_ms in times.values())} |")


if __name__ == "__main__":
    typer.run(main)
