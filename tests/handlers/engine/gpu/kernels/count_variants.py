"""Load a model onto a GPU that is nothing but an architecture, and run steps: ``python -m …`` prints which kernels were compiled.

As JSON: the variants that loading asks for, and those that only the steps after it ask for, while a request waits.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable

import torch
import triton
from transformers import LlamaConfig, LlamaForCausalLM
from triton.runtime import driver

from handlers.config import EngineConfig
from handlers.engine.attention import Scoring
from handlers.engine.decoder_parts import take_apart
from handlers.engine.gpu.kernels.nucleus import nucleus_thresholds
from handlers.engine.gpu.runner import GpuRunner
from handlers.engine.memory.warm_up import largest_step
from handlers.engine.scheduler import Chunk, StepPlan
from tests.handlers.engine.gpu.kernels.compile_kernels import AbsentGPU

BLOCK, MAX_MODEL_LEN, VOCABULARY = 16, 4096, 512
CONFIG = EngineConfig(max_running=48)
META = torch.device("meta")


class Variants:
    """Stands in for launching: compiles the variant that would be launched, and notes it."""

    def __init__(self) -> None:
        driver.set_active(AbsentGPU(90))
        self.seen: set[str] = set()
        self._run = triton.JITFunction.run
        triton.JITFunction.run = lambda kernel, *args, **options: self._compile(kernel, *args, **options)

    def _compile(self, kernel: triton.JITFunction, *args: object, **options: object) -> None:
        compiled = self._run(kernel, *args, **{**options, "warmup": True})
        self.seen.add(f"{compiled.name} {compiled.hash}")


def make_runner() -> GpuRunner:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=1
    )
    with META:
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    parts = take_apart(model, [Scoring(), Scoring()], MAX_MODEL_LEN)
    assert parts is not None
    return GpuRunner(parts, num_blocks=8, block_tokens=BLOCK, new_capture=lambda: run_once, max_rows=CONFIG.max_running)


def run_once(compute: Callable[[], None]) -> Callable[[], None]:
    """A Capture."""
    compute()
    return compute


def chunk(index: int, start: int, end: int) -> Chunk:
    return Chunk(str(index), start, (1,) * (end - start), [0] * -(-end // BLOCK), samples=True)


def random_step(rng: random.Random) -> StepPlan:
    ends = [rng.choice([5, 100, 700, 4000]) for _ in range(rng.choice([0, 1, 2, 7, 47]))]
    prompts = [(rng.choice([0, 3, 160, 1000]), rng.choice([2, 16, 33, 512])) for _ in range(rng.choice([0, 1, 2]))]
    spans = [(end - 1, end) for end in ends] + [(start, start + size) for start, size in prompts]
    return StepPlan(tuple(chunk(index, *span) for index, span in enumerate(spans or [(0, 1)])))


def threshold(num_rows: int) -> None:
    top_k, top_p = torch.empty(2, num_rows, 1, device=META)  # as the sampler has them
    nucleus_thresholds(torch.empty(num_rows, VOCABULARY, device=META), top_k, top_p)


def main() -> None:
    variants, runner = Variants(), make_runner()
    for start, end in ((0, 3), (3, 7), (7, 8)):  # the check of the runner, and then the warm-up
        runner.run(StepPlan((chunk(0, start, end),)))
    runner.run(largest_step(CONFIG, 8, prompt_len=MAX_MODEL_LEN, decode_len=1))
    threshold(CONFIG.max_running)
    runner.resize(64, MAX_MODEL_LEN)
    loading = set(variants.seen)

    rng = random.Random(0)
    for _ in range(60):
        runner.run(random_step(rng))
        threshold(rng.randint(1, CONFIG.max_running))
    json.dump({"loading": sorted(loading), "late": sorted(variants.seen - loading)}, sys.stdout)


if __name__ == "__main__":
    main()
