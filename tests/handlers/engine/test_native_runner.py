"""The kernels in C: they agree with the lean decoder wherever they can run, whatever the shapes."""

import copy
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tiny_models import EOS, VOCAB_SIZE, make_model
from torch import Tensor, nn
from transformers import LlamaConfig, MistralConfig, PreTrainedConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from handlers.engine.compatibility import adopt, check_runner
from handlers.engine.decoder_parts import take_apart
from handlers.engine.lean_runner import LeanRunner
from handlers.engine.native_runner import NativeRunner, fits
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.native.packed_linear import PackedLinear
from handlers.native.quantized_matrix import QuantizedMatrix
from tests.quantizers import QUANTIZERS

BLOCK = 16
MAX_MODEL_LEN = 512
_SIZES = {
    "vocab_size": VOCAB_SIZE + 8,  # no whole number of tiles
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": MAX_MODEL_LEN,
    "eos_token_id": EOS,
}
CONFIGS: dict[str, PreTrainedConfig] = {
    "grouped": LlamaConfig(**_SIZES, tie_word_embeddings=True),
    "many-in-a-group": Qwen3Config(**_SIZES | {"num_attention_heads": 12, "num_key_value_heads": 1, "head_dim": 32}),
    "one-each": LlamaConfig(**_SIZES | {"num_key_value_heads": 4, "head_dim": 48}),
    "biases": Qwen2Config(**_SIZES),
    "head-norms": Qwen3Config(**_SIZES),
    "window": MistralConfig(**_SIZES | {"head_dim": 64}, sliding_window=37),
}


pytestmark = pytest.mark.usefixtures("instructions")


def make_runners(name: str, num_blocks: int = 256) -> tuple[NativeRunner, LeanRunner]:
    model = make_model(CONFIGS[name], torch.bfloat16)
    adoption = adopt(model)
    parts = take_apart(model, adoption.scorings, MAX_MODEL_LEN)
    assert fits(parts, BLOCK)
    native, lean = (kind(parts, num_blocks=num_blocks, block_tokens=BLOCK) for kind in (NativeRunner, LeanRunner))
    check_runner(model, native, adoption)
    return native, lean


def random_plan(rng: random.Random, lengths: dict[int, int]) -> StepPlan:
    """Plan a chunk of random size for some sequences; ``lengths`` are their contexts, and grow. Blocks are scattered."""
    chunks = []
    for index in rng.sample(sorted(lengths), rng.randint(1, len(lengths))):
        size = rng.choice([1, 1, 1, rng.randint(1, 90)])
        start, lengths[index] = lengths[index], lengths[index] + size
        blocks = [(index + 8 * number) % 256 for number in range(-(-lengths[index] // BLOCK))]
        samples = rng.random() < 0.7
        num_drafts = rng.choice([0, min(size, 9) - 1]) if samples else 0
        chunks.append(Chunk(str(index), start, tuple(rng.choices(range(VOCAB_SIZE), k=size)), blocks, samples, num_drafts))
    return StepPlan(tuple(chunks))


@pytest.mark.parametrize("name", CONFIGS)
def test_any_mix_of_chunks_gives_the_lean_decoders_logits(name):
    native, lean = make_runners(name)
    rng = random.Random(name)
    lengths = dict.fromkeys(range(8), 0)
    while max(lengths.values()) < MAX_MODEL_LEN - 90:
        plan = random_plan(rng, lengths)
        ours, theirs = native.run(plan).clone(), lean.run(plan)
        assert ours.shape == theirs.shape
        if len(ours):
            # Rounding differs, and in bfloat16 a step is 0.4 %; a misplaced key or a wrong mask changes everything.
            assert (ours - theirs).norm() < 0.05 * theirs.norm()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_depend_on_their_own_sequence_alone_bit_for_bit(name):
    native, _ = make_runners(name)
    check_sequences_are_alone(native, random.Random(name))


def check_sequences_are_alone(native: NativeRunner, rng: random.Random) -> None:
    prompt = tuple(rng.choices(range(VOCAB_SIZE), k=150))
    whole = native.run(StepPlan((Chunk("a", 0, prompt, list(range(10)), True),))).clone()
    native.reset()
    lengths, start = dict.fromkeys(range(2, 8), 0), 0
    while start < len(prompt):  # in pieces, among others, in other blocks
        size = min(rng.choice([1, 2, 7, 40]), len(prompt) - start)
        piece = Chunk("a", start, prompt[start : start + size], list(range(249, 200, -8)) + list(range(248, 200, -8)), True)
        others = random_plan(rng, lengths)
        in_pieces = native.run(StepPlan((piece, *others.chunks)))[:1].clone()
        start += size
    assert torch.equal(in_pieces, whole)


def test_the_number_of_threads_changes_nothing():
    native, _ = make_runners("grouped")
    plan = random_plan(random.Random(0), dict.fromkeys(range(8), 0))
    expected = native.run(plan).clone()
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        native.reset()
        assert torch.equal(native.run(plan), expected)
    finally:
        torch.set_num_threads(before)


def test_a_block_forgets_what_its_last_owner_left_there():
    native, _ = make_runners("grouped", num_blocks=4)
    plan = StepPlan((Chunk("a", 0, (1, 2, 3), [0], True),))
    expected = native.run(plan).clone()
    native._cache.fill_(torch.nan)
    assert torch.equal(native.run(plan), expected)
    following = StepPlan((Chunk("a", 3, (4,), [0], True),))
    assert native.run(following).isfinite().all()


def test_what_the_kernels_cannot_run_does_not_fit():
    model = make_model(CONFIGS["grouped"], torch.bfloat16)
    parts = take_apart(model, adopt(model).scorings, MAX_MODEL_LEN)
    soft_capped = replace(parts.layers[0], scoring=replace(parts.layers[0].scoring, softcap=30.0))
    assert not fits(replace(parts, layers=(soft_capped,) * 3), BLOCK)
    assert not fits(parts, block_tokens=32)
    full = make_model(CONFIGS["grouped"], torch.float32)
    assert not fits(take_apart(full, adopt(full).scorings, MAX_MODEL_LEN), BLOCK)


@torch.no_grad()
def pack_linears(model: PreTrainedModel, quantize: Callable[[Tensor], QuantizedMatrix]) -> None:
    """Quantize all of a model's linear layers in place, the head too."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            bias = None if module.bias is None else module.bias.data
            model.set_submodule(name, PackedLinear(quantize(module.weight.data), bias), strict=True)


def dense_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return the model with its quantized weights as plain ones in bfloat16."""
    dense = copy.deepcopy(model)
    for name, module in list(dense.named_modules()):
        if isinstance(module, PackedLinear):
            linear = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None, dtype=torch.bfloat16)
            linear.weight.data = module.dequantize().to(torch.bfloat16)
            linear.bias = module.bias
            dense.set_submodule(name, linear, strict=True)
    return dense


def make_quantized(name: str, codes: str) -> PreTrainedModel:
    model = make_model(CONFIGS[name], torch.bfloat16)
    head = model.lm_head
    pack_linears(model, QUANTIZERS[codes])
    if codes == "ordered":
        model.lm_head = head  # GPTQ leaves it plain
    return model


def run_natively(model: PreTrainedModel) -> NativeRunner:
    adoption = adopt(model)
    parts = take_apart(model, adoption.scorings, MAX_MODEL_LEN)
    assert fits(parts, BLOCK)
    native = NativeRunner(parts, num_blocks=256, block_tokens=BLOCK)
    check_runner(model, native, adoption)
    return native


@pytest.mark.parametrize("name", ["grouped", "biases", "window"])
@pytest.mark.parametrize("codes", QUANTIZERS)
def test_a_quantized_model_says_what_its_dequantized_weights_say(name, codes):
    model = make_quantized(name, codes)
    dense, packed = run_natively(dense_copy(model)), run_natively(model)
    assert packed.weight_bytes < dense.weight_bytes
    rng, lengths = random.Random(name), dict.fromkeys(range(8), 0)
    while max(lengths.values()) < 200:
        plan = random_plan(rng, lengths)
        ours, theirs = packed.run(plan), dense.run(plan)
        assert (ours - theirs).norm() <= 0.05 * theirs.norm()  # a weight is rounded there, and not here


@pytest.mark.parametrize("codes", QUANTIZERS)
def test_logits_of_a_quantized_model_depend_on_their_own_sequence_alone_bit_for_bit(codes):
    check_sequences_are_alone(run_natively(make_quantized("grouped", codes)), random.Random(codes))


def test_gates_with_another_order_of_inputs_than_their_ups_do_not_fit():
    model = make_model(CONFIGS["grouped"], torch.bfloat16)
    pack_linears(model, lambda weight: replace(QUANTIZERS["int8"](weight), order=torch.randperm(weight.shape[1])))
    parts = take_apart(model, adopt(model).scorings, MAX_MODEL_LEN)
    assert not fits(parts, BLOCK)
