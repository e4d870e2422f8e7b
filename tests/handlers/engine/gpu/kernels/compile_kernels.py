"""Compile what the launchers launch, without a GPU: ``python compile_kernels.py 90`` prints what each kernel takes as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from handlers.engine.attention import Scoring
from handlers.engine.gpu.kernels.decode_attention import decode_attention
from handlers.engine.gpu.kernels.prefill_attention import prefill_attention
from handlers.engine.gpu.kernels.rms_norm import add_rms_norm, rms_norm
from handlers.engine.gpu.kernels.rotary_write import rotate_and_write
from handlers.engine.gpu.kernels.silu_multiply import silu_multiply


class AbsentGPU:
    """A driver for a GPU of which only the architecture is there."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def compiled(launch: Callable[[], object]) -> list[dict[str, object]]:
    """Run a launcher whose kernels are compiled, but not launched."""
    kernels = []
    run = triton.JITFunction.run

    def compile_only(function: triton.JITFunction, *args: object, **options: object) -> None:
        kernels.append(run(function, *args, **{**options, "warmup": True}))

    triton.JITFunction.run = compile_only
    try:
        launch()
    finally:
        triton.JITFunction.run = run
    return [describe(kernel) for kernel in kernels]


def describe(kernel: triton.compiler.CompiledKernel) -> dict[str, object]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        usage = subprocess.run([program, "--dump-resource-usage", file.name], check=True, capture_output=True, text=True).stdout
    numbers = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    return {
        "kernel": kernel.name,
        "shared_bytes": kernel.metadata.shared,
        "registers": int(numbers["REG"]),
        "stack_bytes": int(numbers["STACK"]),
        "warps": kernel.metadata.num_warps,
        "stages": kernel.metadata.num_stages,
    }


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def launches(head_dim: int, cache_dtype: torch.dtype) -> list[Callable[[], object]]:
    """Llama 3 8B's shapes, with other heads."""
    scales = empty(2, dtype=torch.float32) if cache_dtype == torch.float8_e4m3fn else None
    keys, values = (empty(64, 16, 8, head_dim, dtype=cache_dtype) for _ in range(2))
    query, table, norm = empty(48, 32, head_dim), empty(8192, head_dim), empty(head_dim)
    blocks, lengths = empty(48, 512, dtype=torch.int32), empty(48, dtype=torch.int32)
    scoring = Scoring(softcap=50.0, window=4096) if head_dim == 256 else Scoring()
    places, positions = empty(48, dtype=torch.int64), empty(48, dtype=torch.int64)
    return [
        lambda: rotate_and_write(
            *(empty(48, 48 * head_dim), table, table, positions, places, keys, values),
            num_heads=32,
            query_norm=norm,
            key_norm=norm,
            scales=scales,
        ),
        lambda: decode_attention(query, keys, values, blocks, lengths, scoring, num_splits=8, scales=scales),
        lambda: prefill_attention(query, keys, values, blocks, lengths, lengths, 512, scoring, scales=scales),
    ]


def main(capability: int) -> None:
    driver.set_active(AbsentGPU(capability))
    rows = empty(48, 4096)
    work = [
        lambda: rms_norm(rows, empty(4096), 1e-5),
        lambda: add_rms_norm(rows, rows, empty(4096), 1e-5),
        lambda: silu_multiply(empty(48, 28672)),
    ]
    for head_dim in (64, 80, 128, 256):
        work += launches(head_dim, torch.bfloat16)
        if capability >= 89:
            work += launches(head_dim, torch.float8_e4m3fn)
    json.dump([kernel for launch in work for kernel in compiled(launch)], sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
