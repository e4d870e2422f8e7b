"""Compile what the launchers launch, without a GPU: ``python -m … 90`` prints what each kernel takes on sm_90, as JSON."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from handlers.engine.attention import Scoring
from handlers.engine.gpu.kernels.decode_attention import decode_attention
from handlers.engine.gpu.kernels.nucleus import nucleus_thresholds
from handlers.engine.gpu.kernels.prefill_attention import prefill_attention
from handlers.engine.gpu.kernels.rms_norm import add_rms_norm, rms_norm
from handlers.engine.gpu.kernels.rotary_write import rotate_and_write
from handlers.engine.gpu.kernels.round_rows import round_rows
from handlers.engine.gpu.kernels.silu_multiply import silu_multiply

BFLOAT16, FLOAT16, FP8 = torch.bfloat16, torch.float16, torch.float8_e4m3fn
CASES = {
    80: [(128, BFLOAT16, BFLOAT16)],  # FP8 begins with sm_89
    90: [
        (64, FLOAT16, FLOAT16),
        (80, BFLOAT16, BFLOAT16),
        (128, BFLOAT16, BFLOAT16),
        (128, BFLOAT16, FP8),
        (256, BFLOAT16, BFLOAT16),
    ],
}
"""Head sizes, and dtypes of queries and of the cache."""


class AbsentGPU:
    """Triton's driver for a GPU of which there is nothing but the architecture."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


class Compiler:
    """Stands in for launching: compiles the variant that would be launched, and notes what it takes."""

    def __init__(self, capability: int) -> None:
        driver.set_active(AbsentGPU(capability))
        self._run = triton.JITFunction.run
        self.kernels: list[dict[str, object]] = []
        triton.JITFunction.run = lambda kernel, *args, **options: self._compile(kernel, *args, **options)

    def _compile(self, kernel: triton.JITFunction, *args: object, **options: object) -> None:
        compiled = self._run(kernel, *args, **{**options, "warmup": True})
        registers, stack_bytes = re.search(r"REG:(\d+) STACK:(\d+)", _resources(compiled.asm["cubin"])).groups()
        self.kernels.append(
            {
                "name": compiled.name,
                "shared_bytes": compiled.metadata.shared,
                "registers": int(registers),
                "stack_bytes": int(stack_bytes),
                "instructions": sorted(set(re.findall(r"\b(wgmma|mma\.sync|cp\.async)\b", compiled.asm["ptx"]))),
            }
        )


def _resources(binary: bytes) -> str:
    program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        return subprocess.run([program, "--dump-resource-usage", file.name], check=True, capture_output=True, text=True).stdout


def empty(*shape: int, dtype: torch.dtype = BFLOAT16) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")


def launches(head_dim: int, dtype: torch.dtype, cache_dtype: torch.dtype) -> Iterator[Callable[[], object]]:
    """Yield launches of attention with as many heads as Llama 3 8B's."""
    query, qkv = empty(48, 32, head_dim, dtype=dtype), empty(48, 48 * head_dim, dtype=dtype)
    table, norm = empty(8192, head_dim, dtype=dtype), empty(head_dim, dtype=dtype)
    keys, values = (empty(64, 16, 8, head_dim, dtype=cache_dtype) for _ in range(2))
    scales = empty(2, dtype=torch.float32) if cache_dtype == FP8 else None
    blocks, lengths = empty(48, 512, dtype=torch.int32), empty(48, dtype=torch.int32)
    places = empty(48, dtype=torch.int64)
    scoring = Scoring(softcap=50.0, window=4096) if head_dim == 256 else Scoring()  # as Gemma 2's
    rotation = qkv, table, table, places, places, keys, values
    yield lambda: rotate_and_write(*rotation, num_heads=32, query_norm=norm, key_norm=norm, scales=scales)
    yield lambda: decode_attention(query, keys, values, blocks, lengths, scoring, num_splits=8, scales=scales)
    yield lambda: prefill_attention(query, keys, values, blocks, lengths, lengths, 512, scoring, scales=scales)


def main(capability: int) -> None:
    compiler = Compiler(capability)
    rows, weight = empty(48, 4096), empty(4096)
    rms_norm(rows, weight, 1e-5)
    add_rms_norm(rows, rows, weight, 1e-5)
    silu_multiply(empty(48, 2 * 14336))
    nucleus_thresholds(empty(48, 128256, dtype=torch.float32), *(empty(48, 1, dtype=torch.float32) for _ in range(2)))
    if capability >= 89:
        round_rows(rows)
    for case in CASES[capability]:
        for launch in launches(*case):
            launch()
    json.dump(compiler.kernels, sys.stdout)


if __name__ == "__main__":
    main(int(sys.argv[1]))
