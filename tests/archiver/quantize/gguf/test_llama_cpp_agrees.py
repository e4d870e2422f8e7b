"""llama.cpp reads what we write: the same tokens for a text, the same logits, the same greedy text."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest

from archiver.quantize.gguf.conversion import convert
from archiver.quantize.gguf.pre_tokenizers import LLAMA3, QWEN2, TEKKEN
from tests.archiver.quantize.gguf.family_checkpoints import (
    AWKWARD_TEXTS,
    FAMILIES,
    make_byte_level_tokenizer,
    make_family_checkpoint,
    make_sentencepiece_tokenizer,
)

pytestmark = pytest.mark.peer
PROMPT = [7, 21, 3, 190, 44, 250, 61, 5, 5, 130, 298, 17]
NUM_TOKENS = 40
F32 = 0  # ggml's number: keys and values as exact as the reference's
TINYCHAT = Path(__file__).parents[4] / "examples" / "tinychat" / "model"


def no_progress(*_):
    pass


@contextlib.contextmanager
def llama(path, **options):
    llama_cpp = pytest.importorskip("llama_cpp")
    model = llama_cpp.Llama(str(path), n_ctx=128, verbose=False, logits_all=True, n_threads=2, type_k=F32, type_v=F32, **options)
    try:
        yield model
    finally:
        model.close()


def reference(checkpoint):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()


def reference_logits(model, tokens):
    import torch

    with torch.inference_mode():
        return model(torch.tensor([tokens])).logits[0].numpy()


def reference_greedy(model, tokens, count):
    import torch

    prompt = torch.tensor([tokens])
    ids = model.generate(prompt, max_new_tokens=count, do_sample=False, eos_token_id=None, repetition_penalty=1.0)
    return ids[0, len(tokens) :].tolist()


def greedy(model, tokens, count):
    model.reset()
    model.eval(tokens)
    out = []
    for _ in range(count):
        out.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(out[-1:])
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_greedy_tokens(family, tmp_path):
    checkpoint = make_family_checkpoint(tmp_path / "model", family)
    convert(checkpoint, tmp_path / "model.gguf", "F32", no_progress)
    expected = reference(checkpoint)
    logits = reference_logits(expected, PROMPT)
    with llama(tmp_path / "model.gguf") as model:
        model.eval(PROMPT)
        np.testing.assert_allclose(model.scores[: len(PROMPT)], logits, atol=0.003 * logits.std())
        assert greedy(model, PROMPT, NUM_TOKENS) == reference_greedy(expected, PROMPT, NUM_TOKENS)


@pytest.mark.parametrize("file_type", ["F16", "F32"])
def test_greedy_text_of_tinychat(file_type, tmp_path):
    convert(TINYCHAT, tmp_path / "tinychat.gguf", file_type, no_progress)
    expected = reference(TINYCHAT)
    with llama(tmp_path / "tinychat.gguf") as model:
        for text in ("what is your name?", "tell me about the sea", "12 + 7"):
            prompt = model.tokenize(f"<|bos|><|user|>{text}<|end|><|assistant|>".encode(), add_bos=False, special=True)
            assert greedy(model, prompt, NUM_TOKENS) == reference_greedy(expected, prompt, NUM_TOKENS)


def byte_level(pattern, ignores_merges=False):
    from tokenizers import Regex, pre_tokenizers

    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return make_byte_level_tokenizer([pre_tokenizers.Split(Regex(pattern), "isolated"), to_bytes], ignores_merges=ignores_merges)


def built_in_cut(*cuts):
    from tokenizers import pre_tokenizers

    return make_byte_level_tokenizer([*cuts, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def smollm():
    from tokenizers import pre_tokenizers

    return built_in_cut(pre_tokenizers.Digits(individual_digits=True))


TOKENIZERS = {
    "gpt-2": built_in_cut,
    "smollm": smollm,
    "llama-bpe": lambda: byte_level(LLAMA3, ignores_merges=True),
    "smaug-bpe": lambda: byte_level(LLAMA3),
    "qwen2": lambda: byte_level(QWEN2),
    "tekken": lambda: byte_level(TEKKEN, ignores_merges=True),
    "sentencepiece": make_sentencepiece_tokenizer,
    "metaspace-always": lambda: make_sentencepiece_tokenizer("always"),
    "metaspace-never": lambda: make_sentencepiece_tokenizer("never"),
}


# What llama.cpp does otherwise, and converting warns about.
EXCEPTIONS = {"tekken": lambda text: not text.isascii(), "metaspace-always": lambda text: text.startswith(" ")}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_of_awkward_texts(name, tmp_path):
    tokenizer = TOKENIZERS[name]()
    checkpoint = make_family_checkpoint(tmp_path / "model", "llama", tokenizer=tokenizer, num_hidden_layers=1)
    convert(checkpoint, tmp_path / "model.gguf", "F16", no_progress)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "hello <tool> 12"}], tokenize=False, add_generation_prompt=True)
    with llama(tmp_path / "model.gguf", vocab_only=True) as model:
        for text in [*AWKWARD_TEXTS, chat]:
            ours = tokenizer(text, add_special_tokens=False)["input_ids"]
            if name not in EXCEPTIONS or not EXCEPTIONS[name](text):
                assert model.tokenize(text.encode(), add_bos=False, special=True) == ours, text
