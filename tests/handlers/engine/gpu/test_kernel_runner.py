"""The CUDA runner in Triton's interpreter: what the lean one says, for all families, over any plan, in any blocks."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_models import CONFIGS, EOS, VOCAB_SIZE, generate, make_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from handlers.engine.compatibility import adopt, check_runner
from handlers.engine.decoder_parts import DecoderParts, take_apart
from handlers.engine.engine import Engine
from handlers.engine.gpu.runner import GpuRunner
from handlers.engine.lean_runner import LeanRunner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.sequence import UNKNOWN
from handlers.requests import SamplingParams

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled there: see tests/gpu/test_gpu_runner.py")

BLOCK, NUM_BLOCKS, MAX_MODEL_LEN = 4, 24, 64
FAMILIES = ("llama", "qwen2", "qwen3", "mistral-sliding", "phi3")


def make_tiny_model(name: str) -> PreTrainedModel:
    """Return a model of one layer, in which a token takes 40 ms."""
    config = copy.deepcopy(CONFIGS[name])
    config.num_hidden_layers = 1
    if name == "mistral-sliding":
        config.sliding_window = 5
    return make_model(config)


def make_parts(name: str) -> DecoderParts:
    model = make_tiny_model(name)
    parts = take_apart(model, adopt(model).scorings, MAX_MODEL_LEN)
    assert parts is not None
    return parts


def make_runner(parts: DecoderParts, blocks: Tensor | float = torch.nan, **options: Any) -> GpuRunner:
    """Return a runner with ``blocks`` in its blocks: those of another, or what a broken model leaves there, none of which may be read."""
    runner = GpuRunner(parts, num_blocks=NUM_BLOCKS, block_tokens=BLOCK, **options)
    runner.resize(NUM_BLOCKS, MAX_MODEL_LEN)
    runner._blocks.numbers[...] = blocks
    return runner


def blocks(index: int) -> list[int]:
    """Return eight blocks of a sequence, which lie in no order."""
    shuffled = list(range(NUM_BLOCKS))
    random.Random(5).shuffle(shuffled)
    return shuffled[8 * index : 8 * index + 8]


def tokens(count: int, seed: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).randrange(VOCAB_SIZE) for _ in range(count))


A, B, C = blocks(0), blocks(1), blocks(2)
PLANS = (
    StepPlan((Chunk("a", 0, tokens(7, 1), A, True), Chunk("b", 0, tokens(3, 2), B, samples=False))),
    StepPlan((Chunk("b", 3, tokens(8, 3), B, True), Chunk("a", 7, (9,), A, True), Chunk("c", 0, tokens(2, 4), C, True))),
    StepPlan((Chunk("c", 2, (6,), C, samples=False), Chunk("a", 8, (9, 8, 7), A, True, num_drafts=2), Chunk("b", 11, (5,), B, True))),
    StepPlan((Chunk("b", 12, (4, 3), B, True, num_drafts=1), Chunk("a", 9, (8,), A, True), Chunk("c", 3, tokens(3, 5), C, True))),
)
"""Prompts with and without a prefix, ragged; single tokens; guesses, the last of which were wrong; prompts before running sequences."""

SHORT = StepPlan((Chunk("a", 0, (5, 9), A, True),))
ONE = StepPlan((Chunk("a", 0, (5,), A, True),))


def assert_close(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_says_what_the_lean_runner_says(name: str) -> None:
    parts = make_parts(name)
    lean, runner = LeanRunner(parts, num_blocks=NUM_BLOCKS, block_tokens=BLOCK), make_runner(parts)
    for plan in PLANS:
        logits = runner.run(plan)
        assert logits.dtype == torch.float32
        assert_close(logits, lean.run(plan))


def test_the_check_that_every_runner_must_pass() -> None:
    model = make_model(CONFIGS["llama"])
    adoption = adopt(model)
    parts = take_apart(model, adoption.scorings, MAX_MODEL_LEN)
    assert parts is not None
    check_runner(model, make_runner(parts), adoption)


@pytest.fixture(scope="module")
def llama() -> DecoderParts:
    return make_parts("llama")


class RunningAgain:
    """Stands in for CUDA graphs: to replay is to do again what was recorded, on the same tensors."""

    def __call__(self, compute: Callable[[], None]) -> Callable[[], None]:
        compute()
        return compute


def test_recorded_steps_say_the_same_with_padding(llama: DecoderParts) -> None:
    eager = make_runner(llama)
    for plan in PLANS[:2]:
        eager.run(plan)
    before = eager._blocks.numbers.clone()
    runner = make_runner(llama, before, new_capture=RunningAgain, max_rows=6)
    logits = runner.run(PLANS[2])  # five rows
    assert runner._graphs is not None
    assert logits.data_ptr() == runner._graphs._logits.data_ptr()
    assert_close(logits, eager.run(PLANS[2]))
    kept = runner._blocks.numbers.eq(before) | runner._blocks.numbers.isnan()
    assert int((~kept).any(dim=(0, 1, 4, 5)).sum()) == 5  # the places of five tokens: the padding has none


@pytest.mark.parametrize("options", [{}, {"new_capture": RunningAgain, "max_rows": 2}], ids=["eager", "recorded"])
def test_late_tokens_are_those_that_were_drawn(llama: DecoderParts, options: dict[str, Any]) -> None:
    known = make_runner(llama)
    known.run(PLANS[0])
    runner = make_runner(llama, known._blocks.numbers, **options)
    plan = StepPlan((Chunk("a", 7, (UNKNOWN,), A, True, late_row=2), Chunk("b", 3, (UNKNOWN,), B, True, late_row=1)))
    expected = known.run(StepPlan((Chunk("a", 7, (21,), A, True), Chunk("b", 3, (0,), B, True))))
    assert_close(runner.run_after(plan, torch.tensor([5, -1, 21])), expected)


def test_the_last_token_of_a_prompt_may_be_late_too(llama: DecoderParts) -> None:
    expected = make_runner(llama).run(StepPlan((Chunk("b", 0, (3, 17), B, True),)))
    late = StepPlan((Chunk("b", 0, (3, UNKNOWN), B, True, late_row=0),))
    assert torch.equal(make_runner(llama).run_after(late, torch.tensor([17])), expected)


def test_resizing_gives_other_blocks_and_graphs_over_them(llama: DecoderParts) -> None:
    runner = make_runner(llama, new_capture=RunningAgain)
    expected, kv_bytes, graphs = runner.run(ONE), runner.kv_bytes, runner._graphs
    assert kv_bytes == 2 * NUM_BLOCKS * BLOCK * llama.num_kv_heads * llama.head_dim * 4
    assert expected.data_ptr() == runner._graphs._logits.data_ptr()
    expected = expected.clone()
    runner.resize(2 * NUM_BLOCKS, 48)
    assert (runner.num_blocks, runner.max_model_len, runner.kv_bytes) == (2 * NUM_BLOCKS, 48, 2 * kv_bytes)
    assert graphs is not runner._graphs is not None
    assert torch.equal(runner.run(ONE), expected)


def test_a_sequence_that_comes_again_after_a_reset_is_a_new_one(llama: DecoderParts) -> None:
    runner, block_ids = make_runner(llama), list(A)
    expected = runner.run(StepPlan((Chunk("a", 0, (4, 2), block_ids, True),)))
    runner.reset()
    block_ids[:] = B  # the same list, as nothing forbids
    assert torch.equal(runner.run(StepPlan((Chunk("a", 0, (4, 2), block_ids, True),))), expected)


def test_a_capture_that_fails_is_a_warning_and_steps_go_on(llama: DecoderParts, caplog: pytest.LogCaptureFixture) -> None:
    def fail(compute: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing")

    runner = make_runner(llama, new_capture=lambda: fail)
    assert "cannot be recorded as CUDA graphs" in caplog.text
    assert torch.equal(runner.run(ONE), make_runner(llama).run(ONE))


def test_a_capture_without_memory_is_for_whoever_chooses_the_number_of_blocks(llama: DecoderParts) -> None:
    def fail(compute: Callable[[], None]) -> Callable[[], None]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        make_runner(llama, new_capture=lambda: fail)


def test_keys_and_values_in_8_bits_are_close(llama: DecoderParts) -> None:
    exact, eight = make_runner(llama), make_runner(llama, kv_dtype=torch.float8_e4m3fn)
    assert eight.kv_bytes * 4 == exact.kv_bytes
    got, expected = eight.run(PLANS[0]), exact.run(PLANS[0])
    errors = (eight._blocks.numbers.float() / exact._blocks.numbers - 1).abs()
    assert 0 < errors[~errors.isnan()].quantile(0.9) < 2**-4  # of all but what the interpreter rounds up to the next power of 2: half of it
    assert 0 < (got - expected).norm() < 0.2 * expected.norm()


def test_an_engine_that_runs_ahead_says_what_generate_says(llama: DecoderParts) -> None:
    runner = make_runner(llama, new_capture=RunningAgain, max_rows=3)
    engine = Engine(runner, max_running=3, prefill_chunk_tokens=4, eos_token_ids=frozenset([EOS]))
    prompts = {str(length): list(tokens(length, seed=length)) for length in (6, 1, 3)}
    said: dict[str, list[int]] = {name: [] for name in prompts}
    for name, prompt in prompts.items():
        engine.add(engine.new_sequence(name, prompt, SamplingParams(max_tokens=5, temperature=0.0)))
    while engine.has_work:
        for event in engine.step():
            said[event.sequence_id] += event.token_ids
    assert said == {name: generate(make_tiny_model("llama"), prompt, 5) for name, prompt in prompts.items()}


class Doubled(nn.Module):
    """A linear layer that is none of torch's, as quantized ones are."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, inputs: Tensor) -> Tensor:
        return 2 * self.linear(inputs)


def test_linear_layers_of_any_kind_are_called() -> None:
    model = make_model(CONFIGS["qwen2"])
    adoption = adopt(model)
    for layer in model.model.layers:
        layer.self_attn.k_proj, layer.mlp.down_proj = Doubled(layer.self_attn.k_proj), Doubled(layer.mlp.down_proj)
    model.lm_head = Doubled(model.lm_head)
    parts = take_apart(model, adoption.scorings, MAX_MODEL_LEN)
    assert parts is not None
    lean, runner = LeanRunner(parts, num_blocks=NUM_BLOCKS, block_tokens=BLOCK), make_runner(parts)
    assert_close(runner.run(SHORT), lean.run(SHORT))
