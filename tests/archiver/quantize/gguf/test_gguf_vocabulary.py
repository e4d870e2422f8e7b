"""Tokenizers in GGUF's words, and those that it has none for."""

from __future__ import annotations

import json
import logging

import pytest

from archiver.errors import UsageError
from archiver.quantize.gguf.pre_tokenizers import LLAMA3, QWEN2, name_pre_tokenizer
from archiver.quantize.gguf.special_tokens import describe_sampling, describe_special_tokens
from archiver.quantize.gguf.vocabulary import read_vocabulary
from tests.archiver.quantize.gguf.family_checkpoints import make_sentencepiece_tokenizer
from tests.checkpoints import make_tokenizer

BYTES = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}


def definition(tokenizer):
    return json.loads(tokenizer.backend_tokenizer.to_str())


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


@pytest.mark.parametrize(
    ("steps", "ignores_merges", "name"),
    [
        ([BYTES | {"use_regex": True}], False, "gpt-2"),
        ([{"type": "Digits", "individual_digits": True}, BYTES | {"use_regex": True}], False, "smollm"),
        ([split(LLAMA3), BYTES], True, "llama-bpe"),
        ([split(LLAMA3), BYTES], False, "smaug-bpe"),
        ([split(QWEN2), BYTES], False, "qwen2"),
        ([split(QWEN2, "Removed", invert=True), BYTES], False, "qwen2"),
        ([split(QWEN2.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)", "'(?i:[sdmt]|ll|ve|re)")), BYTES], False, "qwen2"),
    ],
)
def test_known_cuts(steps, ignores_merges, name):
    assert name_pre_tokenizer(sequence(*steps), ignores_merges=ignores_merges) == name


@pytest.mark.parametrize(
    "step",
    [
        BYTES,
        BYTES | {"use_regex": True, "add_prefix_space": True},
        split(LLAMA3, "MergedWithNext"),
        split(LLAMA3, invert=True),
        split(r"\w+"),
        {"type": "Whitespace"},
    ],
)
def test_unknown_cuts_are_refused_with_the_known_ones(step):
    with pytest.raises(UsageError, match="known: gpt-2, llama-bpe"):
        name_pre_tokenizer(sequence(step), ignores_merges=False)


def test_other_kinds_of_tokenizers_are_refused():
    spec = definition(make_tokenizer())
    with pytest.raises(UsageError, match="Unigram"):
        read_vocabulary(spec | {"model": spec["model"] | {"type": "Unigram"}}, 400)
    with pytest.raises(UsageError, match="Lowercase"):
        read_vocabulary(spec | {"normalizer": {"type": "Lowercase"}}, 400)


def test_more_tokens_than_rows():
    with pytest.raises(UsageError, match="embeddings have 20 rows"):
        read_vocabulary(definition(make_tokenizer()), 20)


def test_types_of_tokens_and_rows_without_one():
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    vocabulary = read_vocabulary(definition(tokenizer), len(tokenizer) + 2)
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert [types["<|end|>"], types["<tool>"], types["a"], types[f"[PAD{len(tokenizer)}]"]] == [3, 4, 1, 5]
    assert vocabulary.merges[0].count(" ") == 1 and not vocabulary.scores


@pytest.mark.parametrize(("scheme", "expected"), [(None, True), ("always", True), ("first", True), ("never", False)])
def test_sentencepiece(scheme, expected, caplog):
    tokenizer = make_sentencepiece_tokenizer(scheme)
    with caplog.at_level(logging.WARNING):
        vocabulary = read_vocabulary(definition(tokenizer), len(tokenizer))
    assert (vocabulary.model, vocabulary.puts_space_in_front) == ("llama", expected)
    types = dict(zip(vocabulary.tokens, vocabulary.types, strict=True))
    assert [types["<unk>"], types["<s>"], types["<0x0A>"], types["▁the"]] == [2, 3, 6, 1]
    scores = dict(zip(vocabulary.tokens, vocabulary.scores, strict=True))
    assert scores["▁t"] > scores["▁the"]
    assert ("special token" in caplog.text) == (scheme == "first")
    assert "do not come from SentencePiece" not in caplog.text


@pytest.mark.parametrize(
    ("merges", "warns"),
    [
        (["a b", "b c", "ab c", "a bc"], False),
        (["a b", "b c", "ab c"], True),  # llama.cpp may also put a and bc together
        (["a b", "ab c", "b c", "a bc"], True),  # and would do so before b and c, since abc has one score
    ],
)
def test_merges_that_are_not_sentencepieces_are_told(merges, warns, caplog):
    spec = definition(make_sentencepiece_tokenizer())
    pieces = ["<unk>", "a", "b", "c", "ab", "bc", "abc"]
    spec["model"] |= {"vocab": {piece: index for index, piece in enumerate(pieces)}, "merges": merges}
    read_vocabulary(spec | {"added_tokens": []}, len(pieces))
    assert ("do not come from SentencePiece" in caplog.text) == warns


def test_sentencepiece_with_other_normalizers_is_refused():
    spec = definition(make_sentencepiece_tokenizer()) | {"normalizer": {"type": "NFKC"}}
    with pytest.raises(UsageError, match="NFKC"):
        read_vocabulary(spec, 1000)


class Generation:
    do_sample = True
    temperature = 0.6
    top_p = 0.9
    top_k = None

    def __init__(self, *stops):
        self.eos_token_id = list(stops)


def test_every_token_that_ends_an_answer():
    tokenizer = make_tokenizer()
    described = describe_special_tokens(tokenizer, Generation(7, tokenizer.eos_token_id, 9))
    assert [described[f"tokenizer.ggml.{end}_token_id"] for end in ("eos", "eot", "eom")] == [tokenizer.eos_token_id, 7, 9]
    assert described["tokenizer.chat_template"] == tokenizer.chat_template


def test_the_generation_configuration_decides_where_an_answer_ends():
    assert describe_special_tokens(make_tokenizer(), Generation(7))["tokenizer.ggml.eos_token_id"] == 7


def test_a_tokenizer_that_adds_a_first_token():
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_sentencepiece_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    described = describe_special_tokens(tokenizer, Generation())
    assert (described["tokenizer.ggml.add_bos_token"], described["tokenizer.ggml.add_eos_token"]) == (True, False)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> <s> $A", special_tokens=[("<s>", 1)])
    with pytest.raises(UsageError, match="adds more than"):
        describe_special_tokens(tokenizer, Generation())


def test_recommended_sampling():
    assert describe_sampling(Generation()) == {"general.sampling.temp": 0.6, "general.sampling.top_p": 0.9}
    greedy = Generation()
    greedy.do_sample = False
    assert describe_sampling(greedy) == {"general.sampling.temp": 0.0}
