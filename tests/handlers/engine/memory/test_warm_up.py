"""The largest step really runs, on every runner, and leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from engine_fakes import VOCAB_SIZE
from tiny_models import CONFIGS, generate, make_model

from handlers.config import EngineConfig
from handlers.engine.compatibility import adopt
from handlers.engine.decoder_parts import take_apart
from handlers.engine.engine import Engine
from handlers.engine.lean_runner import LeanRunner
from handlers.engine.memory.device import HostMemory
from handlers.engine.memory.warm_up import largest_step, measure
from handlers.engine.runner import ResizableRunner
from handlers.engine.transformers_runner import TransformersRunner
from handlers.requests import SamplingParams

CONFIG = EngineConfig(max_running=5, prefill_chunk_tokens=40, block_tokens=8)
PROMPT = [5, 6, 7, 8]


def make_runner(kind: type, name: str) -> ResizableRunner:
    model = make_model(CONFIGS[name])
    adoption = adopt(model)
    if kind is LeanRunner:
        return LeanRunner(take_apart(model, adoption.scorings, 256), num_blocks=8, block_tokens=8)
    return TransformersRunner(model, adoption.kv_shapes, num_blocks=8, block_tokens=8, max_model_len=256)


def test_it_reads_the_largest_chunk_and_samples_for_everybody():
    prompt, *others = largest_step(CONFIG, 8, prompt_len=256, decode_len=30).chunks
    assert (prompt.start, prompt.end, len(prompt.block_ids), max(prompt.block_ids)) == (216, 256, 32, 7)
    assert [(chunk.start, chunk.end, len(chunk.block_ids)) for chunk in others] == [(29, 30, 4)] * 4
    assert len({chunk.sequence_id for chunk in (prompt, *others)}) == 5


def test_a_window_shorter_than_a_chunk_is_read_whole():
    [prompt] = largest_step(EngineConfig(max_running=1), 8, prompt_len=20, decode_len=1).chunks
    assert (prompt.start, prompt.end) == (0, 20)


@pytest.mark.parametrize("kind", [TransformersRunner, LeanRunner])
@pytest.mark.parametrize("name", ["llama", "mistral-sliding"])
def test_a_few_blocks_suffice_and_the_runner_is_as_new_after_it(kind, name):
    runner = make_runner(kind, name)
    footprint = measure(runner, HostMemory(), largest_step(CONFIG, runner.num_blocks, prompt_len=256, decode_len=256))
    assert (footprint.weights, footprint.kv_cache) == (runner.weight_bytes, runner.kv_bytes)
    assert footprint.activations >= 0 < footprint.context
    kv_bytes = runner.kv_bytes
    runner.resize(64, 200)
    assert (runner.num_blocks, runner.max_model_len, runner.kv_bytes) == (64, 200, 8 * kv_bytes)
    engine = Engine(runner, max_running=4)
    engine.add(engine.new_sequence("a", PROMPT, SamplingParams(max_tokens=12, temperature=0.0, stop_token_ids=(7,))))
    said = [token_id for _ in range(12) for event in engine.step() for token_id in event.token_ids]
    assert said == generate(make_model(CONFIGS[name]), PROMPT, 12)


@pytest.mark.skipif(not HostMemory().own_bytes(), reason="the system does not tell")
def test_sampling_counts_as_part_of_the_step():
    class Runner:
        """Computes nothing, and returns large logits."""

        weight_bytes = kv_bytes = 0

        def run(self, plan):
            return torch.ones(len(plan.chunks), 1000 * VOCAB_SIZE)

        def reset(self):
            pass

    step = largest_step(EngineConfig(max_running=64), 8, prompt_len=1, decode_len=1)
    logits_bytes = 64 * 1000 * VOCAB_SIZE * 4
    measure(Runner(), HostMemory(), step)  # what is loaded on the first call is no activation
    assert 3 * logits_bytes < measure(Runner(), HostMemory(), step).activations < 14 * logits_bytes
