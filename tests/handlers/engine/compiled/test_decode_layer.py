"""The function that is compiled, and which steps it may compute: here it runs as it is, without a compiler."""

import random
from dataclasses import replace

import pytest
import torch
from compiled_layers import BLOCK, LLAMA_LIKE, Conversation, chunk, exchange, lean_layers, make_runner, shapes_of
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CONFIGS, VOCAB_SIZE
from torch import nn

from handlers.engine.compiled.agreement import agrees
from handlers.engine.compiled.decode_layer import DecodeLayer, LayerShape, example_inputs
from handlers.engine.compiled.layers import CompiledLayers, joint_block_table
from handlers.engine.scheduler import StepPlan
from handlers.engine.step_layout import lay_out


def random_prompt(rng: random.Random, longest: int = 100) -> list[int]:
    return [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, longest))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_rows_of_every_kind_give_the_logits_of_a_lean_runner(name, dtype):
    lean, other = make_runner(CONFIGS[name], dtype), make_runner(CONFIGS[name], dtype)
    rng = random.Random(0)
    prompts = [random_prompt(rng) for _ in range(4)]
    read = StepPlan(tuple(chunk(index, 0, prompt) for index, prompt in enumerate(prompts)))
    lean.run(read)
    other.run(read)
    code = exchange(other)
    plans = [
        StepPlan((chunk(0, len(prompts[0]), [5]),)),
        StepPlan((*(chunk(index, len(prompts[index]), [7 + index]) for index in (3, 1, 2)), chunk(0, len(prompts[0]) + 1, [1, 2, 3], 2))),
        StepPlan((chunk(4, 0, [9, 8, 7]), chunk(1, len(prompts[1]) + 1, [4]))),  # with a short prompt
    ]
    for plan in plans:
        wanted, got = lean.run(plan), other.run(plan)
        assert (got - wanted).norm() <= (1e-5 if dtype == torch.float32 else 0.03) * wanted.norm()
    assert code.calls == len(plans) * len(lean_layers(lean).layers)


def test_an_engine_says_the_same_token_by_token_with_prompts_of_any_length_between():
    rng = random.Random(1)
    prompts = [random_prompt(rng) for _ in range(12)]
    plain, exchanged = make_runner(), make_runner()
    code = exchange(exchanged)
    assert Conversation(exchanged, prompts, 20).finish() == Conversation(plain, prompts, 20).finish()
    assert code.calls > 20


def test_prompts_and_contexts_of_very_different_lengths_are_computed_as_before():
    runner = make_runner()
    code = exchange(runner)
    runner.run(StepPlan((chunk(0, 0, list(range(40))),)))
    assert code.calls == 0
    chunks = (chunk(0, 200, [1]), *(chunk(index, 3, [1]) for index in range(1, 12)))
    layout = lay_out(StepPlan(chunks), BLOCK, torch.device("cpu"), most_blocks=400)
    assert joint_block_table(layout, BLOCK, 12 * 26) is not None
    assert joint_block_table(layout, BLOCK, 12 * 26 - 1) is None


@given(st.lists(st.tuples(st.integers(0, 150), st.integers(1, 20)), min_size=1, max_size=16))
def test_the_table_holds_each_row_s_context_and_otherwise_blocks_of_its_own(sizes: list[tuple[int, int]]):
    chunks = [chunk(index, start, [0] * tokens, num_drafts=tokens - 1) for index, (start, tokens) in enumerate(sizes)]
    layout = lay_out(StepPlan(tuple(chunks)), BLOCK, torch.device("cpu"), most_blocks=10**6)
    table = joint_block_table(layout, BLOCK, 10**6)
    if table is None:
        longest = max(each.end for each in chunks)
        padding = sum(tokens * (longest - start) for start, tokens in sizes)
        assert padding > 8000 or any(tokens > 16 for _, tokens in sizes)
        return
    owner = {tuple(each.block_ids[: table.shape[1]])[0]: each for each in chunks}
    for position, place, blocks in zip(layout.positions[0].tolist(), layout.places.tolist(), table.tolist(), strict=True):
        own = owner[blocks[0]].block_ids
        num_needed = position // BLOCK + 1
        assert blocks[:num_needed] == own[:num_needed]
        assert set(blocks) <= set(own)
        assert place == blocks[position // BLOCK] * BLOCK + position % BLOCK


def test_what_computes_something_else_is_found_out():
    runner = make_runner()
    layers = lean_layers(runner)
    right = DecodeLayer(shapes_of(runner)[0])

    def compiled(code) -> CompiledLayers:
        return CompiledLayers(layers, [code] * len(layers.layers), BLOCK)

    def careless(inputs):
        return [right(*inputs[:6], inputs[6].clone(), *inputs[7:])]  # keeps no keys

    assert agrees(layers, compiled(lambda inputs: [right(*inputs)]), BLOCK)
    assert not agrees(layers, compiled(lambda inputs: [right(*inputs) * 1.01]), BLOCK)
    assert not agrees(layers, compiled(lambda inputs: [right(*inputs) * torch.nan]), BLOCK)
    assert not agrees(layers, compiled(careless), BLOCK)


def test_a_layer_with_a_module_of_its_own_kind_is_not_compiled():
    class Quantized(nn.Linear):
        pass

    [layer, *_] = lean_layers(make_runner()).layers
    assert LayerShape.of(layer, BLOCK) is not None
    assert LayerShape.of(replace(layer, down=Quantized(96, 48, bias=False)), BLOCK) is None


@pytest.mark.parametrize("name", LLAMA_LIKE)
def test_example_inputs_have_the_shapes_of_the_real_ones(name):
    shape = shapes_of(make_runner(CONFIGS[name]))[0]
    inputs = example_inputs(shape)
    assert DecodeLayer(shape)(*inputs).shape == inputs[0].shape
