"""Tokens one by one: what a client reads of each, also where it is only a part of a character."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.text.vocabulary import Vocabulary
from tests.checkpoints import make_tokenizer

RAW = make_tokenizer()
VOCABULARY = Vocabulary(RAW)


@given(st.text(max_size=30))
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(text: str) -> None:
    token_ids = RAW(text)["input_ids"]

    assert b"".join(VOCABULARY.token(token_id).raw for token_id in token_ids) == text.encode()


def test_a_whole_token_is_its_text_and_a_part_of_a_character_spells_its_bytes() -> None:
    whole = VOCABULARY.token(RAW(" the")["input_ids"][0])
    parts = [VOCABULARY.token(token_id) for token_id in RAW("ü")["input_ids"]]

    assert (whole.text, whole.raw, whole.is_special) == (" the", b" the", False)
    assert [(part.text, part.raw) for part in parts] == [("\\xc3", b"\xc3"), ("\\xbc", b"\xbc")]


def test_special_tokens_say_so() -> None:
    end = VOCABULARY.token(RAW.eos_token_id)

    assert (end.text, end.is_special) == ("<|end|>", True)
    assert RAW.eos_token_id in VOCABULARY.special_ids


def test_an_id_beyond_the_vocabulary_has_no_text() -> None:
    assert VOCABULARY.token(len(RAW) + 5).text == ""


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """A tokenizer as Llama 2 has it."""
    from tokenizers import Tokenizer, decoders, models
    from transformers import PreTrainedTokenizerFast

    words = ["\u2581", "\u2581fox", "es", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {"<unk>": 0} | {word: index for index, word in enumerate(words, 1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


@pytest.mark.parametrize(
    ("written", "text", "raw"),
    [("\u2581fox", " fox", b" fox"), ("es", "es", b"es"), ("\u2581", " ", b" "), ("<0xE6>", "\\xe6", b"\xe6"), ("<0x41>", "A", b"A")],
)
def test_a_sentencepiece_token_keeps_its_space_and_its_byte(sentencepiece: Any, written: str, text: str, raw: bytes) -> None:
    token = Vocabulary(sentencepiece).token(sentencepiece.convert_tokens_to_ids(written))

    assert (token.text, token.raw) == (text, raw)
