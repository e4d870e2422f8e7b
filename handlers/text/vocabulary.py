"""A tokenizer's tokens one by one: their strings and their bytes."""

from __future__ import annotations

import functools
import re
from typing import Any

from handlers.requests import Token
from handlers.text.detokenizer import REPLACEMENT

_SPACE = "\u2581"
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""How SentencePiece writes a space, and a byte that is no character of its vocabulary."""


class Vocabulary:
    """Look up tokens of a transformers ``tokenizer``. Thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.size = len(tokenizer)
        self.token = functools.lru_cache(maxsize=65536)(self._token)

    @functools.cached_property
    def special_ids(self) -> frozenset[int]:
        """Tokens that are no text."""
        return frozenset(token_id for token_id, token in self._tokenizer.added_tokens_decoder.items() if token.special)

    @functools.cached_property
    def longest_token(self) -> int:
        """The most characters that one token can stand for: bounds a prompt's tokens from below without tokenizing it.

        In a byte-level vocabulary a token is written with one character a byte, in a SentencePiece vocabulary with one a character: never
        fewer than the characters it stands for.
        """
        return max(len(token) for token in self._tokenizer.get_vocab())

    def _token(self, token_id: int) -> Token:
        """Return a token's string and bytes; an id beyond the vocabulary, which a model with a padded one may give, has neither."""
        written = str(self._tokenizer.convert_ids_to_tokens(token_id) or "")
        is_special = token_id in self.special_ids
        text = str(self._tokenizer.decode([token_id]))
        if REPLACEMENT in text and (raw := _raw_bytes(written)) is not None:
            return Token(token_id, "".join(f"\\x{byte:02x}" for byte in raw), raw, is_special)
        if written.startswith(_SPACE) and not text.startswith(" "):
            text = f" {text}"  # Decoded alone, it stands at the beginning of a text, where the space is dropped.
        return Token(token_id, text, text.encode("utf-8", "replace"), is_special)


def _raw_bytes(written: str) -> bytes | None:
    """Return the bytes behind a token that is part of a character, as either kind of vocabulary writes it; None for other ways."""
    if found := _BYTE.fullmatch(written):
        return bytes.fromhex(found[1])
    alphabet = _byte_alphabet()
    return bytes(alphabet[char] for char in written) if all(char in alphabet for char in written) else None


@functools.cache
def _byte_alphabet() -> dict[str, int]:
    """Map the characters that byte-level vocabularies write to bytes (GPT-2): printable ones stand for themselves, the rest follow."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}
