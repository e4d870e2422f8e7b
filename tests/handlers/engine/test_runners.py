"""The engine over real architectures: token by token what ``generate`` says, in any company, on every runner."""

import random
from collections import defaultdict
from dataclasses import replace

import pytest
import torch
from tiny_models import CONFIGS, EOS, VOCAB_SIZE, generate, make_model

from handlers.engine.compatibility import adopt, check_runner
from handlers.engine.decoder_parts import take_apart
from handlers.engine.engine import Engine
from handlers.engine.lean_runner import LeanRunner
from handlers.engine.runner import Runner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.transformers_runner import TransformersRunner
from handlers.requests import SamplingParams

BLOCK = 8
MAX_MODEL_LEN = 256
LLAMA_LIKE = ("llama", "qwen2", "qwen3", "mistral-sliding", "phi3")


def make_runner(kind: type, name: str, num_blocks: int = 256, dtype: torch.dtype = torch.float32) -> Runner:
    model = make_model(CONFIGS[name], dtype)
    adoption = adopt(model)
    if kind is LeanRunner:
        runner = LeanRunner(take_apart(model, adoption.scorings, MAX_MODEL_LEN), num_blocks=num_blocks, block_tokens=BLOCK)
    else:
        sizes = {"num_blocks": num_blocks, "block_tokens": BLOCK, "max_model_len": MAX_MODEL_LEN}
        runner = TransformersRunner(model, adoption.kv_shapes, **sizes)
    check_runner(model, runner, adoption)
    return runner


def make_engine(runner: Runner, **options) -> Engine:
    return Engine(runner, max_running=8, prefill_chunk_tokens=16, eos_token_ids=frozenset([EOS]), **options)


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
        engine.check_integrity()
    return [token_ids[index] for index in range(len(requests))]


RUNNERS = [(TransformersRunner, name) for name in CONFIGS] + [(LeanRunner, name) for name in LLAMA_LIKE]


@pytest.mark.parametrize(("kind", "name"), RUNNERS)
def test_mixed_requests_equal_generate_token_by_token(kind, name):
    count = 64 if name == "llama" else 16
    oracle = make_model(CONFIGS[name])
    rng = random.Random(1)
    requests = [(prompt, SamplingParams(max_tokens=rng.randint(1, 24), temperature=0.0)) for prompt in random_prompts(count)]
    expected = [generate(oracle, prompt, params.max_tokens) for prompt, params in requests]
    assert len({tuple(tokens) for tokens in expected}) > count // 2  # the model does not say the same to all
    assert run_staggered(make_engine(make_runner(kind, name)), requests) == expected


@pytest.mark.parametrize("kind", [TransformersRunner, LeanRunner])
def test_shared_prefixes_and_preemptions_change_nothing(kind):
    oracle = make_model(CONFIGS["llama"])
    shared = random_prompts(1, seed=9)[0][:40]
    prompts = [shared[: 8 * (index % 5)] + prompt[:20] for index, prompt in enumerate(random_prompts(12, seed=4))]
    prompts += [prompts[0], prompts[7], prompts[7]]
    expected = [generate(oracle, prompt, 40) for prompt in prompts]
    engine = make_engine(make_runner(kind, "llama", num_blocks=MAX_MODEL_LEN // BLOCK))
    assert run_staggered(engine, [(prompt, SamplingParams(max_tokens=40, temperature=0.0)) for prompt in prompts], 1) == expected
    stats = engine.stats()
    assert stats.preemptions > 0
    assert stats.cached_tokens > 0


def test_a_seed_gives_the_same_tokens_in_any_company():
    runner = make_runner(TransformersRunner, "llama")
    prompt = random_prompts(1)[0]
    params = SamplingParams(max_tokens=20, temperature=1.0, top_p=0.95, seed=42, ignore_eos=True)
    [alone] = run_staggered(make_engine(runner), [(prompt, params)])
    neighbours = [(other, SamplingParams(max_tokens=30, temperature=1.5)) for other in random_prompts(9, seed=5)]
    crowded = run_staggered(make_engine(runner), [*neighbours[:4], (prompt, params), *neighbours[4:], (prompt, params)])
    assert crowded[4] == crowded[-1] == alone
    [other] = run_staggered(make_engine(runner), [(prompt, SamplingParams(max_tokens=20, temperature=1.0, top_p=0.95, ignore_eos=True))])
    assert other != alone


def chunk(index: int, start: int, token_ids: list[int], samples: bool = True) -> Chunk:
    """Return a chunk of the sequence ``index``, whose blocks are its own."""
    blocks = range(index * MAX_MODEL_LEN // BLOCK, (index + 1) * MAX_MODEL_LEN // BLOCK)
    return Chunk(f"sequence {index}", start, tuple(token_ids), list(blocks), samples)


@pytest.mark.parametrize("kind", [TransformersRunner, LeanRunner])
def test_logits_come_in_the_order_of_the_plan_and_only_for_rows_that_sample(kind):
    runner = make_runner(kind, "llama")
    a, b, c = random_prompts(3)
    alone = {index: runner.run(StepPlan((chunk(index, 0, prompt),)))[0] for index, prompt in ((5, a), (2, b))}
    runner.reset()
    logits = runner.run(StepPlan((chunk(5, 0, a), chunk(7, 0, c, samples=False), chunk(2, 0, b))))
    assert logits.shape == (2, VOCAB_SIZE)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, torch.stack([alone[5], alone[2]]), atol=1e-4, rtol=1e-4)
    assert runner.run(StepPlan((chunk(1, 0, [1], samples=False),))).shape == (0, VOCAB_SIZE)


@pytest.mark.parametrize("name", LLAMA_LIKE)
@pytest.mark.parametrize("kind", [TransformersRunner, LeanRunner])
def test_guesses_get_the_logits_that_they_would_get_one_by_one(kind, name):
    prompts, runner = random_prompts(4, seed=7), make_runner(kind, name)
    guesses = [[5, 6, 7], [9], [11, 12, 13], []]
    expected = []
    for index, (prompt, guess) in enumerate(zip(prompts, guesses, strict=True)):
        expected.append(runner.run(StepPlan((chunk(index, 0, prompt),)))[:0].clone())
        expected += [runner.run(StepPlan((chunk(index, len(prompt) + place, [token]),))) for place, token in enumerate([1, *guess])]
    chunks = [
        replace(chunk(index, len(prompt), [1, *guess]), num_drafts=len(guess))
        for index, (prompt, guess) in enumerate(zip(prompts, guesses, strict=True))
    ]
    logits = runner.run(StepPlan((*chunks[:2], chunk(5, 0, prompts[0][:20], samples=False), *chunks[2:])))
    torch.testing.assert_close(logits, torch.cat(expected), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [TransformersRunner, LeanRunner])
def test_a_block_forgets_what_its_last_owner_left_there(kind):
    runner = make_runner(kind, "llama")
    short, long = [1, 2, 3], random_prompts(1, seed=3)[0][:40]
    expected = runner.run(StepPlan((chunk(0, 0, short),)))
    runner.run(StepPlan((chunk(0, 0, long), chunk(1, 0, long))))
    for tensor in (*runner._cache._keys, *runner._cache._values):
        tensor[: MAX_MODEL_LEN // BLOCK] = torch.nan  # as a broken sequence would
    runner.run(StepPlan((chunk(0, 0, short[:2], samples=False),)))
    plan = StepPlan((chunk(0, 2, short[2:]), chunk(1, len(long), [5])))  # one group, padded to the longer context
    torch.testing.assert_close(runner.run(plan)[:1], expected, atol=1e-4, rtol=1e-4)


def test_bfloat16_stays_close_to_float32():
    prompt = random_prompts(1, seed=2)[0]
    plan = StepPlan((chunk(0, 0, prompt),))
    half, full = (make_runner(LeanRunner, "llama", dtype=dtype).run(plan)[0] for dtype in (torch.bfloat16, torch.float32))
    assert (half - full).norm() < 0.1 * full.norm()
