"""Pieces add up to the whole, and no character is ever split."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.text.detokenizer import MAX_CHARACTER_TOKENS, REPLACEMENT, IncrementalDetokenizer
from tests.checkpoints import make_tokenizer

TOKENIZER = make_tokenizer()
SPECIAL = frozenset(token_id for token_id, token in TOKENIZER.added_tokens_decoder.items() if token.special)
BYTES = [token_id for token_id in range(len(TOKENIZER)) if TOKENIZER.decode([token_id]) == REPLACEMENT]
token_ids = st.integers(0, len(TOKENIZER) - 1)


def pieces_of(ids: Sequence[int], decode: Callable[..., str] = TOKENIZER.decode) -> list[str]:
    detokenizer = IncrementalDetokenizer(decode, SPECIAL if decode == TOKENIZER.decode else frozenset())
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.flush()]


@given(st.lists(token_ids, max_size=40))
def test_any_tokens_add_up(ids: list[int]) -> None:
    assert "".join(pieces_of(ids)) == TOKENIZER.decode(ids, skip_special_tokens=True)


@given(st.lists(st.sampled_from([*BYTES, *SPECIAL]), max_size=40))
def test_bytes_that_are_mostly_no_text_add_up(ids: list[int]) -> None:
    assert "".join(pieces_of(ids)) == TOKENIZER.decode(ids, skip_special_tokens=True)


@given(st.text())
def test_no_character_of_a_text_is_split(text: str) -> None:
    pieces = pieces_of(TOKENIZER(text)["input_ids"])

    assert "".join(pieces) == text
    if REPLACEMENT not in text:
        assert not any(REPLACEMENT in piece for piece in pieces)


@given(st.text(min_size=1))
def test_a_complete_character_is_not_held_back(text: str) -> None:
    if text.endswith(REPLACEMENT):
        return
    assert pieces_of(TOKENIZER(text)["input_ids"])[-1] == ""


def test_junk_is_not_held_back_for_ever() -> None:
    pieces = pieces_of([BYTES[0]] * 50)

    assert all(pieces[index] for index in range(MAX_CHARACTER_TOKENS, 50))


@given(st.lists(token_ids, max_size=200))
def test_a_step_decodes_a_few_tokens_however_long_the_text_is(ids: list[int]) -> None:
    lengths = [0]

    def decode(window: Sequence[int]) -> str:
        lengths.append(len(window))
        return str(TOKENIZER.decode(window))

    pieces_of(ids, decode)

    assert max(lengths) <= 2 * MAX_CHARACTER_TOKENS


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """A tokenizer as Llama 2 has it: "▁" for a space, dropped at the very start, and bytes for characters that it does not know."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    words = ["▁", "▁the", "▁fox", "es", "x", *(f"<0x{byte:02X}>" for byte in range(256))]
    vocab = {"<unk>": 0} | {word: index for index, word in enumerate(words, 1)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return tokenizer


def test_spaces_between_words_survive(sentencepiece: Any) -> None:
    ids = [sentencepiece.token_to_id(word) for word in ("▁the", "▁fox", "es", "▁", "▁the")]

    assert pieces_of(ids, sentencepiece.decode) == ["the", " fox", "es", " ", " the", ""]


@given(text=st.text(st.characters(min_codepoint=0x80, exclude_categories=("Cs",)), max_size=20))
def test_characters_spelled_in_byte_tokens_are_not_split(sentencepiece: Any, text: str) -> None:
    ids = [sentencepiece.token_to_id(f"<0x{byte:02X}>") for byte in text.encode()]

    pieces = pieces_of(ids, sentencepiece.decode)

    assert "".join(pieces) == text
    if REPLACEMENT not in text:
        assert not any(REPLACEMENT in piece for piece in pieces)
