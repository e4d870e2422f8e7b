"""A GGUF file's tokenizer is the one that the file was made with; llama.cpp itself reads the same tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from handlers.config import HandlerConfig
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile
from handlers.text.gguf_tokenizer import read_tokenizer
from handlers.text.tokenizer import load_tokenizer
from tests.gguf_files import write_gguf

TEXTS = [
    "Hello World, it's 1234567 o'clock!  I'll   say 'WE'RE here'\n\n  and\tthen\r\n  more...   ",
    "naïve café — ΣΊΣΥΦΟΣ 東京都 привет мир 🙂🙂 x/y/z //\n// AbCdEF camelCaseWord 3.14159 $100 a_b_c",
    "def f(x):\n    return x+1\n\n\n# end   \n",
    " leading and trailing ",
    "",
    "   ",
    "\n",
    "١٢٣٤ ½ ² Ⅷ",
    "<|s|>hi<|e|> there",
]
SIZES: dict[str, Any] = {
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.block_count": 1,
    "llama.feed_forward_length": 32,
    "llama.attention.head_count": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.dimension_count": 16,
}
KINDS = ["gpt-2", "smollm", "llama-bpe", "qwen2", "tekken", "sentencepiece", "sentencepiece without a space"]


def train(texts: list[str], alphabet: list[str]) -> tuple[list[str], list[str]]:
    """Return tokens and merges that pay no heed to words: what they make of a text depends on how it was split before."""
    tokenizer = Tokenizer(models.BPE())
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, min_frequency=1, show_progress=False)
    tokenizer.train_from_iterator(texts * 5, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), [" ".join(merge) for merge in model["merges"]]


def byte_level() -> dict[str, Any]:
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    texts = ["".join(piece for piece, _ in to_bytes.pre_tokenize_str(text)) for text in TEXTS[:-1]]
    tokens, merges = train(texts, pre_tokenizers.ByteLevel.alphabet())
    types = (3, 3) + (1,) * len(tokens)
    return {"model": "gpt2", "tokens": ("<|s|>", "<|e|>", *tokens), "token_type": types, "merges": tuple(merges)}


def sentence_piece() -> dict[str, Any]:
    tokens, _ = train([text.replace(" ", "▁") for text in TEXTS[:-1]], [])
    all_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    return {
        "model": "llama",
        "tokens": ("<|s|>", "<|e|>", "<unk>", *all_bytes, *tokens),
        "token_type": (3, 3, 2) + (6,) * 256 + (1,) * len(tokens),
        "scores": (0.0,) * 259 + tuple(-float(rank) for rank in range(len(tokens))),
        "unknown_token_id": 2,
    }


def make_file(kind: str, file: Path, **changes: Any) -> Path:
    """Write a file with a tokenizer and hardly any model."""
    section = sentence_piece() if "sentencepiece" in kind else byte_level() | {"pre": kind}
    section |= {"bos_token_id": 0, "eos_token_id": 1, "add_space_prefix": kind != "sentencepiece without a space"} | changes
    metadata = SIZES | {"llama.vocab_size": len(section["tokens"])} | {f"tokenizer.ggml.{key}": value for key, value in section.items()}
    weights = {"token_embd.weight": np.zeros((len(section["tokens"]), 32), np.float32)}
    return write_gguf(file, "llama", metadata | {"tokenizer.chat_template": "{{ messages[0]['content'] }}"}, weights)


@pytest.fixture(params=KINDS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make_file(request.param, tmp_path / "model.gguf")


def test_every_text_comes_back(file: Path) -> None:
    tokenizer = read_tokenizer(GgufFile.open(file))
    for text in TEXTS[:-1]:
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
    assert tokenizer(TEXTS[-1], add_special_tokens=False)["input_ids"][0] == tokenizer.bos_token_id == 0


@pytest.mark.peer
def test_llama_cpp_reads_the_same_tokens(file: Path) -> None:
    import llama_cpp

    tokenizer = read_tokenizer(GgufFile.open(file))
    reference = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    for text in TEXTS:
        for begins in (False, True):
            ours = tokenizer(text, add_special_tokens=begins)["input_ids"]
            assert ours == reference.tokenize(text.encode(), add_bos=begins, special=True)


def test_texts_begin_and_end_as_the_file_says(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(GgufFile.open(make_file("gpt-2", tmp_path / "x.gguf", add_bos_token=True, add_eos_token=True)))
    token_ids = tokenizer("hi")["input_ids"]
    assert (token_ids[0], token_ids[-1]) == (0, 1)


def test_the_handler_s_tokenizer_comes_from_the_file_unless_the_original_lies_beside_it(tmp_path: Path) -> None:
    make_file("qwen2", tmp_path / "x.gguf")
    tokenizer = load_tokenizer(tmp_path, tmp_path, HandlerConfig())
    assert tokenizer._apply_template([{"role": "user", "content": "hello"}]) == "hello"

    Tokenizer(models.WordLevel({"word": 0}, unk_token="word")).save(str(tmp_path / "tokenizer.json"))
    assert len(load_tokenizer(tmp_path, tmp_path, HandlerConfig())._tokenizer) == 1


@pytest.mark.parametrize("changes", [{"pre": "of-tomorrow"}, {"model": "rwkv"}, {"model": "llama"}])
def test_a_tokenizer_of_another_kind_is_one_line_with_advice(tmp_path: Path, changes: dict[str, str]) -> None:
    make_file("gpt-2", tmp_path / "x.gguf", **changes)
    with pytest.raises(ConfigError, match=r"x.gguf has a tokenizer .*; put the model's tokenizer.json beside the file"):
        load_tokenizer(tmp_path, tmp_path, HandlerConfig())
