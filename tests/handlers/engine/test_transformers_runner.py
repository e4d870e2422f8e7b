"""The engine over real architectures: token by token what ``generate`` says, in any company."""

import random
from collections import defaultdict

import pytest
import torch
from tiny_models import CONFIGS, EOS, VOCAB_SIZE, generate, make_model

from handlers.engine.compatibility import adopt, check_runner
from handlers.engine.engine import Engine
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.transformers_runner import TransformersRunner
from handlers.requests import SamplingParams


def make_runner(name: str, num_slots: int = 8, dtype: torch.dtype = torch.float32) -> TransformersRunner:
    model = make_model(CONFIGS[name], dtype)
    adoption = adopt(model)
    runner = TransformersRunner(model, adoption.kv_shapes, num_slots=num_slots, max_model_len=256)
    check_runner(model, runner, adoption)
    return runner


def make_engine(runner: TransformersRunner) -> Engine:
    return Engine(runner, prefill_chunk_tokens=16, eos_token_ids=frozenset([EOS]))


def random_prompts(count: int, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 100))] for _ in range(count)]


def run_staggered(engine: Engine, requests: list[tuple[list[int], SamplingParams]], steps_between: int = 2) -> list[list[int]]:
    """Add a request every few steps and run all to their end; return the tokens of each."""
    token_ids = defaultdict(list)
    pending = list(enumerate(requests))
    while pending or engine.has_work:
        if pending:
            index, (prompt, params) = pending.pop(0)
            engine.add(engine.new_sequence(str(index), prompt, params))
        for _ in range(steps_between):
            for event in engine.step():
                token_ids[int(event.sequence_id)].extend(event.token_ids)
    return [token_ids[index] for index in range(len(requests))]


@pytest.mark.parametrize(("name", "count"), [(name, 64 if name == "llama" else 16) for name in CONFIGS])
def test_mixed_requests_equal_generate_token_by_token(name, count):
    oracle = make_model(CONFIGS[name])
    rng = random.Random(1)
    requests = [(prompt, SamplingParams(max_tokens=rng.randint(1, 24), temperature=0.0)) for prompt in random_prompts(count)]
    expected = [generate(oracle, prompt, params.max_tokens) for prompt, params in requests]
    assert len({tuple(tokens) for tokens in expected}) > count // 2  # the model does not say the same to all
    assert run_staggered(make_engine(make_runner(name)), requests) == expected


def test_a_seed_gives_the_same_tokens_in_any_company():
    runner = make_runner("llama")
    prompt = random_prompts(1)[0]
    params = SamplingParams(max_tokens=20, temperature=1.0, top_p=0.95, seed=42, ignore_eos=True)
    [alone] = run_staggered(make_engine(runner), [(prompt, params)])
    neighbours = [(other, SamplingParams(max_tokens=30, temperature=1.5)) for other in random_prompts(9, seed=5)]
    crowded = run_staggered(make_engine(runner), [*neighbours[:4], (prompt, params), *neighbours[4:], (prompt, params)])
    assert crowded[4] == crowded[-1] == alone
    [other] = run_staggered(make_engine(runner), [(prompt, SamplingParams(max_tokens=20, temperature=1.0, top_p=0.95, ignore_eos=True))])
    assert other != alone


def chunk(slot: int, start: int, token_ids: list[int], samples: bool = True) -> Chunk:
    return Chunk(f"slot {slot}", slot, start, tuple(token_ids), samples)


def test_logits_come_in_the_order_of_the_plan_and_only_for_rows_that_sample():
    runner = make_runner("llama")
    a, b, c = random_prompts(3)
    alone = {slot: runner.run(StepPlan((chunk(slot, 0, prompt),)))[0] for slot, prompt in ((5, a), (2, b))}
    runner.reset()
    logits = runner.run(StepPlan((chunk(5, 0, a), chunk(7, 0, c, samples=False), chunk(2, 0, b))))
    assert logits.shape == (2, VOCAB_SIZE)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.stack([alone[5], alone[2]]), atol=1e-4, rtol=1e-4)
    assert runner.run(StepPlan((chunk(1, 0, [1], samples=False),))).shape == (0, VOCAB_SIZE)


def test_a_slot_forgets_what_its_last_sequence_left_there():
    runner = make_runner("llama", num_slots=2)
    short, long = [1, 2, 3], random_prompts(1, seed=3)[0][:40]
    expected = runner.run(StepPlan((chunk(0, 0, short),)))
    runner.run(StepPlan((chunk(0, 0, long), chunk(1, 0, long))))
    for tensor in (*runner._cache._keys, *runner._cache._values):
        tensor[0, :, : len(long)] = torch.nan  # as a broken sequence would
    runner.run(StepPlan((chunk(0, 0, short[:2], samples=False),)))
    plan = StepPlan((chunk(0, 2, short[2:]), chunk(1, len(long), [5])))  # one group, padded to the longer context
    torch.testing.assert_close(runner.run(plan)[:1], expected, atol=1e-4, rtol=1e-4)


def test_bfloat16_stays_close_to_float32():
    prompt = random_prompts(1, seed=2)[0]
    plan = StepPlan((chunk(0, 0, prompt),))
    half, full = (make_runner("llama", dtype=dtype).run(plan)[0] for dtype in (torch.bfloat16, torch.float32))
    assert (half - full).norm() < 0.1 * full.norm()
