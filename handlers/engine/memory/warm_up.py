"""The largest step that a configuration allows, and what it takes."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from handlers.config import EngineConfig
from handlers.engine.memory.device import DeviceMemory
from handlers.engine.memory.footprint import Footprint
from handlers.engine.runner import Runner
from handlers.engine.sampler import sample
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.sequence import Sequence
from handlers.requests import SamplingParams

_DEAREST = SamplingParams(max_tokens=1, top_p=0.999, logprobs=20)
"""Of equal logits this is a nucleus that only sorting the whole vocabulary finds."""


def largest_step(config: EngineConfig, num_blocks: int, *, prompt_len: int, decode_len: int) -> StepPlan:
    """Return a step with a prompt's last chunk, ``prompt_len`` tokens from its beginning, and a token of every other sequence.

    The last of ``decode_len`` tokens, that is, and all of them sample. Sequences take the same ``num_blocks`` over and over: what a step
    takes does not depend on which blocks it reads, so that a few of them show what the longest contexts will take.
    """
    chunk_tokens = min(config.prefill_chunk_tokens, prompt_len)
    chunks = [_chunk("prompt", prompt_len, chunk_tokens, config.block_tokens, num_blocks)]
    chunks += [_chunk(str(index), decode_len, 1, config.block_tokens, num_blocks) for index in range(1, config.max_running)]
    return StepPlan(tuple(chunks))


def _chunk(name: str, end: int, num_tokens: int, block_tokens: int, num_blocks: int) -> Chunk:
    block_ids = [index % num_blocks for index in range(-(-end // block_tokens))]
    return Chunk(name, end - num_tokens, (0,) * num_tokens, block_ids, samples=True)


@torch.inference_mode()
def run_step(runner: Runner, step: StepPlan) -> None:
    """Compute and sample ``step``, with parameters that make sampling as dear as it gets; nothing of it is kept."""
    logits = runner.run(step)
    sample(logits.zero_(), list(_sequences(step)))
    runner.reset()


def _sequences(step: StepPlan) -> Iterator[Sequence]:
    for chunk in step.chunks:
        yield Sequence(chunk.sequence_id, [0], _DEAREST, seed=0, max_len=2, end_token_ids=frozenset())


def measure(runner: Runner, memory: DeviceMemory, step: StepPlan) -> Footprint:
    """Run ``step`` and return what the runner takes: its parts add up to the peak of the process. Raises what running raises."""
    memory.release_unused()
    before = memory.own_bytes()
    memory.reset_peak()
    run_step(runner, step)
    activations = max(memory.peak_bytes() - before, 0)
    memory.release_unused()
    held = runner.weight_bytes + runner.kv_bytes
    return Footprint(runner.weight_bytes, runner.kv_bytes, activations, context=max(before - held, 0))
