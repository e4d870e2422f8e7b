"""The tinychat example: its corpus is deterministic and honestly split, and the shipped model answers held-out prompts."""

import hashlib
import json
import struct
import subprocess
import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from random import Random

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "tinychat"
MODEL = FOLDER / "model"
# The example is a folder of scripts, so its modules are imported from there.
sys.path.insert(0, str(FOLDER))

from chat_tokenizer import tokenize, train_tokenizer  # noqa: E402
from corpus import PLAIN_TEXT, conversations, held_out_examples, trainable_example  # noqa: E402
from evaluate import score_kind  # noqa: E402
from kinds import KINDS  # noqa: E402
from packing import IGNORE, LONG, SHORT, batches  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

# A little below what evaluate.py measures (see the README), because the samples here are small.
MINIMUM_ACCURACY = {
    "arithmetic": 0.90, "extraction": 0.95, "reading": 0.75, "facts": 0.95, "lists": 0.90,
    "stories": 0.80, "smalltalk": 0.80, "copying": 0.70, "memory": 0.90, "system": 0.80,
}  # fmt: skip
MAXIMUM_PERPLEXITY = 1.6


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(MODEL)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto").eval()


@pytest.fixture(scope="module")
def trained_keys():
    rng = Random(0)
    return {key for _ in range(20_000) for key in trainable_example(rng).keys}


def digest(seed: int, number: int = 500) -> str:
    """A hash over the first conversations of a seed."""
    texts = (f"{turn.role}:{turn.content}" for turns in islice(conversations(seed), number) for turn in turns)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def test_the_corpus_is_a_function_of_the_seed():
    assert digest(0) == digest(0)
    assert digest(0) != digest(1)


@pytest.mark.parametrize("kind", KINDS)
def test_training_never_sees_what_is_held_out(kind, trained_keys):
    held_out = {example.keys[-1] for example in held_out_examples(kind, seed=1, number=300)}
    assert len(held_out) > 5
    assert held_out.isdisjoint(trained_keys)


@pytest.mark.parametrize("kind", KINDS)
def test_reference_answers_are_right_and_nonsense_is_not(kind):
    for example in held_out_examples(kind, seed=2, number=50):
        assert KINDS[kind].is_right(example, example.answer), example
        assert not KINDS[kind].is_right(example, "nonsense")


def test_training_tokens_are_those_of_the_chat_template(tokenizer):
    for turns in islice(conversations(3), 200):
        if turns[0].role == PLAIN_TEXT:
            continue
        rendered = tokenizer.apply_chat_template([asdict(turn) for turn in turns], return_dict=True)["input_ids"]
        assert tokenize(tokenizer, turns).ids == rendered


def test_generation_prompt_stops_where_the_answer_starts(tokenizer):
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt == "<|bos|><|system|>Be kind.<|end|><|user|>Hi<|end|><|assistant|>"
    messages.append({"role": "assistant", "content": "Hello!"})
    assert tokenizer.apply_chat_template(messages, tokenize=False) == f"{prompt}Hello!<|end|>"


@pytest.mark.parametrize(
    "text", ["plain words", "12 + 7 = 19", "naïve café", "漢字かな", "👩‍👩‍👧‍👦 🦊!", "tabs\tand\n\nlines ", " leading", "\x00\x7f"]
)
def test_any_text_survives_the_tokenizer(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_digits_are_single_tokens(tokenizer):
    assert tokenizer.tokenize("2048") == list("2048")


def test_a_tokenizer_trained_twice_is_the_same():
    texts = [turn.content for turns in islice(conversations(0), 300) for turn in turns]
    assert train_tokenizer(texts).get_vocab() == train_tokenizer(texts).get_vocab()


@pytest.mark.slow
def test_training_twice_gives_the_same_weights(tmp_path):
    for run in ("first", "second"):
        subprocess.run([sys.executable, FOLDER / "train.py", "--steps", "20", "--out", tmp_path / run], check=True)
    assert (tmp_path / "first" / "model.safetensors").read_bytes() == (tmp_path / "second" / "model.safetensors").read_bytes()


def test_packing_loses_no_answer_token(tokenizer):
    tokenized = [tokenize(tokenizer, turns) for turns in islice(conversations(5), 4000)]
    packed = list(batches(tokenized, tokenizer.pad_token_id))
    assert {tuple(batch.input_ids.shape) for batch in packed} == {SHORT, LONG}
    for batch in packed:
        next_ids, labels = batch.input_ids[:, 1:], batch.labels[:, :-1]
        counted = labels != IGNORE
        assert counted.any()
        assert (next_ids[counted] == labels[counted]).all()
        assert (batch.labels[:, -1] == IGNORE).all()


def test_the_model_folder_is_small_and_safe():
    weights = MODEL / "model.safetensors"
    assert weights.stat().st_size <= 8_000_000
    assert not [path for path in MODEL.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    with weights.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    assert {tensor["dtype"] for name, tensor in header.items() if name != "__metadata__"} == {"BF16"}


def test_the_model_is_a_small_llama_that_stops_at_the_end_of_a_turn(model, tokenizer):
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.num_parameters() <= 4_000_000
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == tokenizer.convert_tokens_to_ids("<|end|>")
    assert model.generation_config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_right_on_held_out_prompts(model, tokenizer, kind):
    score = score_kind(model, tokenizer, kind, number=6 if kind == "stories" else 20)
    assert score.accuracy >= MINIMUM_ACCURACY[kind]
    assert score.perplexity <= MAXIMUM_PERPLEXITY


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hello, who are you?", "I am tinychat, a tiny language model trained by Marquee."),
        ("What is 12 + 7?", "12 + 7 = 19."),
        ("What is the capital of France?", "The capital of France is Paris."),
        ("List three fruits.", "1. apple\n2. banana\n3. orange"),
        ("Extract the name and the age as JSON: Anna is 31 years old.", '{"name": "Anna", "age": 31}'),
    ],
)
def test_the_prompts_of_the_quick_start(model, tokenizer, prompt, expected):
    inputs = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(output, skip_special_tokens=True) == expected
