"""The CUDA runner on a real GPU: what the model itself says, with graphs and without, alone and in company, in 16 bits and in 8."""

from __future__ import annotations

import copy
import random
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from handlers.config import EngineConfig, ModelConfig
from handlers.engine.capacity import Capacity
from handlers.engine.compatibility import adopt
from handlers.engine.engine import Engine
from handlers.engine.runners import choose_runner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.native.fp8_linear import Fp8Linear
from handlers.requests import SamplingParams
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.load_recipes import load_quantizing
from tests.checkpoints import make_checkpoint

if TYPE_CHECKING:
    from handlers.engine.gpu.runner import GpuRunner

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

VOCAB_SIZE, EOS = 1000, 7
BLOCK, MAX_MODEL_LEN = 16, 512
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": MAX_MODEL_LEN,
    "bos_token_id": 1,
    "eos_token_id": EOS,
    "pad_token_id": 0,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=128),
    "mistral": MistralConfig(**SIZES, sliding_window=40),
    "phi3": Phi3Config(**SIZES | {"num_key_value_heads": 4}),
}
GREEDY = SamplingParams(max_tokens=24, temperature=0.0, stop_token_ids=(EOS,))


def make_model(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Return a model whose weights are large enough that greedy output varies, the same at every call."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(copy.deepcopy(CONFIGS[name]), dtype=dtype).eval()  # an engine changes its own
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    return model.cuda()


def make_runner(model: PreTrainedModel, num_blocks: int = 1024, **options: Any) -> GpuRunner:
    """Return the runner that the engine chooses, with its graphs."""
    from handlers.engine.gpu.runner import GpuRunner

    config = EngineConfig(max_running=64, block_tokens=BLOCK, **options)
    runner = choose_runner(model, adopt(model), Capacity(8, MAX_MODEL_LEN), config)
    assert isinstance(runner, GpuRunner)
    runner.resize(num_blocks, MAX_MODEL_LEN)
    assert (runner._graphs is not None) == config.cuda_graphs
    return runner


def make_engine(runner: GpuRunner) -> Engine:
    return Engine(runner, max_running=64, prefill_chunk_tokens=128)


def random_prompts(count: int, longest: int = 200) -> list[list[int]]:
    rng = random.Random(count)
    return [[rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, longest))] for _ in range(count)]


def run_all(engine: Engine, requests: list[tuple[list[int], SamplingParams]]) -> list[list[int]]:
    """Add a request at every step, and return the tokens of each."""
    said: list[list[int]] = [[] for _ in requests]
    pending = deque(enumerate(requests))
    while pending or engine.has_work:
        if pending:
            index, (prompt, params) = pending.popleft()
            engine.add(engine.new_sequence(str(index), prompt, params))
        for event in engine.step():
            assert event.error is None
            said[int(event.sequence_id)] += event.token_ids
    return said


@torch.inference_mode()
def generate(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    input_ids = torch.tensor([prompt], device="cuda")
    options = {"do_sample": False, "max_new_tokens": GREEDY.max_tokens, "eos_token_id": EOS, "pad_token_id": 0}
    output = model.generate(input_ids, attention_mask=torch.ones_like(input_ids), **options)
    return output[0, len(prompt) :].tolist()


def chunk(index: int, start: int, token_ids: list[int]) -> Chunk:
    """Return a chunk of a sequence that has every eighth block."""
    return Chunk(str(index), start, tuple(token_ids), list(range(index, 8 * MAX_MODEL_LEN // BLOCK, 8)), samples=True)


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).norm() / expected.norm())


@pytest.mark.parametrize("cuda_graphs", [True, False], ids=["graphs", "eager"])
@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_output_is_generates_token_by_token(name: str, cuda_graphs: bool) -> None:
    oracle, prompts = make_model(name), random_prompts(12)
    expected = [generate(oracle, prompt) for prompt in prompts]
    assert len({tuple(token_ids) for token_ids in expected}) > 6
    engine = make_engine(make_runner(make_model(name), cuda_graphs=cuda_graphs))
    assert run_all(engine, [(prompt, GREEDY) for prompt in prompts]) == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_in_bfloat16_are_close_to_the_models(name: str) -> None:
    [prompt] = random_prompts(1)
    with torch.inference_mode():
        expected = make_model(name)(torch.tensor([prompt], device="cuda")).logits[0, -1].float()
    runner = make_runner(make_model(name, torch.bfloat16))
    runner.run(StepPlan((chunk(3, 0, prompt[:-1]),)))
    [logits] = runner.run(StepPlan((chunk(3, len(prompt) - 1, prompt[-1:]),)))
    assert relative_error(logits, expected) < 0.1


def test_graphs_say_what_kernels_say_one_by_one() -> None:
    prompts = random_prompts(8)
    prefill = StepPlan(tuple(chunk(index, 0, prompt) for index, prompt in enumerate(prompts)))
    recorded, eager = make_runner(make_model("llama")), make_runner(make_model("llama"), cuda_graphs=False)
    for num_rows in (1, 3, 8):
        decode = StepPlan(tuple(chunk(index, len(prompt), [5]) for index, prompt in enumerate(prompts[:num_rows])))
        for runner in (recorded, eager):
            runner.run(prefill)
        torch.testing.assert_close(recorded.run(decode), eager.run(decode), atol=1e-3, rtol=1e-3)


def test_64_mixed_requests_are_what_each_is_alone() -> None:
    runner = make_runner(make_model("llama"))
    rng = random.Random(64)
    requests = []
    for index, prompt in enumerate(random_prompts(64)):
        sampled = SamplingParams(max_tokens=rng.randint(1, 40), temperature=1.0, top_p=0.9, seed=index, ignore_eos=True)
        requests.append((prompt, sampled if index % 2 else GREEDY))
    together = run_all(make_engine(runner), requests)
    alone = [run_all(make_engine(runner), [request])[0] for request in requests]
    assert together == alone


def test_memory_stays_flat_over_10_000_requests() -> None:
    engine = make_engine(make_runner(make_model("llama", torch.bfloat16)))
    requests = [(prompt, SamplingParams(max_tokens=4, temperature=1.0)) for prompt in random_prompts(1000, longest=20)]
    run_all(engine, requests)
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(9):
        run_all(engine, requests)
    assert torch.cuda.memory_allocated() <= before[0] + (1 << 20)
    assert torch.cuda.memory_reserved() <= before[1] + (32 << 20)


fp8 = pytest.mark.skipif(not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9), reason="this GPU has no FP8")


@fp8
def test_keys_and_values_in_8_bits_are_half_as_large_and_close() -> None:
    [prompt] = random_prompts(1)
    plan = StepPlan((chunk(0, 0, prompt),))
    half = make_runner(make_model("llama", torch.bfloat16))
    eight = make_runner(make_model("llama", torch.bfloat16), kv_dtype="fp8")
    assert eight.kv_bytes * 2 == half.kv_bytes
    assert relative_error(eight.run(plan), half.run(plan)) < 0.1


@fp8
def test_linear_layers_in_8_bits_are_close_and_recorded(tmp_path: Path) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 512, "max_position_embeddings": MAX_MODEL_LEN}
    checkpoint = Checkpoint.open(make_checkpoint(tmp_path / "model", dtype="bfloat16", **sizes), ModelConfig())
    model = load_quantizing(checkpoint, "fp8", torch.device("cuda"))
    assert sum(isinstance(module, Fp8Linear) for module in model.modules()) == 2 * 7
    plan = StepPlan((chunk(0, 0, list(range(5, 60))),))
    error = relative_error(make_runner(model).run(plan), make_runner(checkpoint.load()).run(plan))
    assert 0.05 < error < 0.4  # these weights are large: rounding alone makes it a quarter
