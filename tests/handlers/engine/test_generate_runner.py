"""Static batches under continuous batching: whatever joins, ends, fails or is merged, each sequence says what ``generate`` says alone."""

import random

import pytest
import torch
from tiny_models import CONFIGS, EOS, VOCAB_SIZE, generate, make_model
from transformers import GPT2Config, JambaConfig, Mamba2Config, MambaConfig, RwkvConfig

from handlers.config import EngineConfig
from handlers.engine.engine import Engine
from handlers.engine.generate_engine import build_generate_engine
from handlers.engine.generate_runner import GenerateRunner
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.requests import SamplingParams

_SMALL = {"vocab_size": VOCAB_SIZE, "hidden_size": 48, "bos_token_id": 1, "eos_token_id": EOS}
STATE_SPACE = {
    "mamba": MambaConfig(**_SMALL, num_hidden_layers=2, pad_token_id=0),
    "mamba2": Mamba2Config(**_SMALL, num_hidden_layers=2, head_dim=24, num_heads=4, n_groups=1, state_size=16),
    "rwkv-unshared": RwkvConfig(**_SMALL, num_hidden_layers=2, context_length=64),
    "jamba-hybrid": JambaConfig(
        **_SMALL,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_layer_period=2,
        attn_layer_offset=1,
        num_experts=2,
        mamba_d_state=8,
        pad_token_id=0,
    ),
}
MODELS = {"llama": CONFIGS["llama"], "gpt2": CONFIGS["gpt2"], **STATE_SPACE}


def make_engine(model, max_model_len=64, **limits) -> Engine:
    config = EngineConfig(max_model_len=max_model_len, num_threads=1)
    return build_generate_engine(model, config, eos_token_ids=frozenset({EOS}), **limits)


def random_prompts(count: int) -> list[list[int]]:
    draw = random.Random(1)
    return [[draw.randrange(8, VOCAB_SIZE) for _ in range(draw.choice([2, 3, 9, 20]))] for _ in range(count)]


def say(engine: Engine, prompts: list[list[int]], max_tokens: int, *, steps_apart: int = 0) -> list[list[int]]:
    """Return what the engine says; ``steps_apart`` steps lie between the arrivals."""
    said = [[] for _ in prompts]
    failed = []

    def step():
        for event in engine.step():
            said[int(event.sequence_id)].extend(event.token_ids)
            failed.extend([event] if event.error else [])
        engine.check_integrity()

    for number, prompt in enumerate(prompts):
        engine.add(engine.new_sequence(str(number), prompt, SamplingParams(temperature=0.0, max_tokens=max_tokens)))
        for _ in range(steps_apart):
            step()
    while engine.has_work:
        step()
    assert not failed
    return said


@pytest.mark.parametrize("steps_apart", [0, 1, 3])
@pytest.mark.parametrize("name", MODELS)
def test_mixed_lengths_equal_generate(name, steps_apart):
    model = make_model(MODELS[name])
    prompts = random_prompts(6)
    expected = [generate(model, prompt, 12) for prompt in prompts]
    assert say(make_engine(model, max_running=4), prompts, 12, steps_apart=steps_apart) == expected


class Passes:
    """Counts the forward passes of a model and raises at those that a test names."""

    def __init__(self, model):
        self.count = 0
        self.failing: set[int] = set()
        self.poison: int | None = None
        model.register_forward_pre_hook(self._before, with_kwargs=True)

    def _before(self, model, args, kwargs):
        self.count += 1
        if self.count in self.failing or (self.poison is not None and (kwargs["input_ids"] == self.poison).any()):
            raise RuntimeError("out of memory")


def plan(*chunks: tuple[str, int, list[int]]) -> StepPlan:
    return StepPlan(tuple(Chunk(name, start, tuple(token_ids), [0], samples=True) for name, start, token_ids in chunks))


def test_batches_are_merged_once_that_is_cheaper():
    model = make_model(CONFIGS["llama"])
    passes = Passes(model)
    runner = GenerateRunner(model, max_running=4, max_model_len=256)
    runner.run(plan(("a", 0, [9] * 60)))
    counts = []
    for step in range(6):
        before = passes.count
        runner.run(plan(("a", 60 + step, [9]), ("b", step + 4 if step else 0, [9] if step else [9] * 5)))
        counts.append(passes.count - before)
    # 65 tokens: after the third step with two batches the second passes have cost 32 tokens each, 96 together.
    assert counts == [2, 2, 2, 1, 1, 1]


def test_a_batch_ends_with_its_last_sequence():
    model = make_model(CONFIGS["llama"])
    passes = Passes(model)
    runner = GenerateRunner(model, max_running=4, max_model_len=256)
    runner.run(plan(("a", 0, [9] * 200)))
    runner.run(plan(("a", 200, [9]), ("b", 0, [9])))
    before = passes.count
    runner.run(plan(("b", 1, [9])))
    assert passes.count == before + 1


def test_an_id_may_be_used_again():
    model = make_model(CONFIGS["llama"])
    runner = GenerateRunner(model, max_running=4, max_model_len=256)
    runner.run(plan(("a", 0, [9, 10, 11])))
    runner.run(plan(("a", 3, [12]), ("b", 0, [9])))
    again = runner.run(plan(("a", 0, [20, 21]), ("b", 1, [13])))
    fresh = GenerateRunner(model, max_running=4, max_model_len=256).run(plan(("a", 0, [20, 21])))
    assert torch.allclose(again[0], fresh[0], atol=1e-4)


def test_the_row_of_an_ended_sequence_never_leaves_the_window():
    """Learned positions have no row beyond it: the model would raise."""
    model = make_model(GPT2Config(vocab_size=VOCAB_SIZE, n_embd=48, n_layer=2, n_head=4, n_positions=32, bos_token_id=1, eos_token_id=EOS))
    prompts = [[9 + i for i in range(28)], [40, 41]]
    expected = [generate(model, prompt, 32 - len(prompt)) for prompt in prompts]
    assert say(make_engine(model, max_model_len=32), prompts, 32) == expected


def test_a_prompt_that_fails_fails_alone():
    model = make_model(MODELS["mamba"])
    engine = make_engine(model)
    expected = generate(model, [20, 21], 10)
    Passes(model).poison = 99
    engine.add(engine.new_sequence("good", [20, 21], SamplingParams(temperature=0.0, max_tokens=10)))
    events = engine.step()
    engine.add(engine.new_sequence("bad", [98, 99], SamplingParams(temperature=0.0, max_tokens=10)))
    while engine.has_work:
        events += engine.step()
    assert [event.finish_reason for event in events if event.sequence_id == "bad"] == ["error"]
    assert [token_id for event in events if event.sequence_id == "good" for token_id in event.token_ids] == expected


def test_a_step_that_fails_over_a_later_batch_is_repeated_from_the_start():
    """The first batch has advanced by then, and must not advance twice."""
    model = make_model(CONFIGS["llama"])
    prompts = {"a": [9] * 30, "b": [20, 21]}
    runner = GenerateRunner(model, max_running=4, max_model_len=256)
    passes = Passes(model)
    runner.run(plan(("a", 0, prompts["a"])))
    runner.run(plan(("a", 30, [9]), ("b", 0, prompts["b"])))
    step = plan(("a", 31, [11]), ("b", 2, [22]))
    passes.failing = {passes.count + 2}
    with pytest.raises(RuntimeError, match="out of memory"):
        runner.run(step)
    repeated = runner.run(step)
    fresh = GenerateRunner(model, max_running=4, max_model_len=256).run(
        plan(("a", 0, [*prompts["a"], 9, 11]), ("b", 0, [*prompts["b"], 22]))
    )
    assert torch.allclose(repeated, fresh, atol=1e-4)


def test_prompts_are_read_whole():
    runner = GenerateRunner(make_model(CONFIGS["llama"]), max_running=4, max_model_len=256)
    with pytest.raises(ValueError, match="reads prompts whole"):
        runner.run(StepPlan((Chunk("a", 0, (9, 9), [0], samples=False),)))
