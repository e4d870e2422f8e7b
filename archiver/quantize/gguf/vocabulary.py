"""A tokenizer's vocabulary in GGUF's words: byte-level BPE ("gpt2") and SentencePiece's BPE with byte fallback ("llama")."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from gguf import TokenType

from archiver.errors import UsageError
from archiver.quantize.gguf.families import Metadata
from archiver.quantize.gguf.pre_tokenizers import name_pre_tokenizer

logger = logging.getLogger(__name__)

_SPACE = "▁"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Vocabulary:
    """``tokens`` and ``types`` have an entry for each row of the embeddings.

    Of ``merges`` (each "left right") and ``scores`` (the likelier merge has the higher) the one that ``model`` has no use for is empty.
    """

    model: str
    cuts: str
    tokens: Sequence[str]
    types: Sequence[int]
    merges: Sequence[str] = ()
    scores: Sequence[float] = ()
    puts_space_in_front: bool = False

    def describe(self) -> dict[str, Any]:
        """Return the keys."""
        arrays = {"tokens": self.tokens, "token_type": self.types, "merges": self.merges, "scores": self.scores}
        rest: Metadata = {"model": self.model, "pre": self.cuts, "add_space_prefix": self.puts_space_in_front}
        return {f"tokenizer.ggml.{key}": value for key, value in (rest | arrays).items() if not isinstance(value, Sequence) or value}


def read_vocabulary(definition: Mapping[str, Any], num_rows: int) -> Vocabulary:
    """Return the vocabulary of a tokenizer.json for embeddings of ``num_rows``; raise UsageError if GGUF has no words for it.

    Rows without a token get one that no text becomes.
    """
    model = definition["model"]
    if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise UsageError(f"GGUF files are written for byte-level BPE and SentencePiece's BPE, not for this {model['type']} tokenizer")
    tokens, types = _list_tokens(definition, num_rows)
    merges = [tuple(merge.split(" ", 1)) if isinstance(merge, str) else tuple(merge) for merge in model["merges"]]
    if model.get("byte_fallback"):
        return _sentencepiece(definition, tokens, types, merges)
    _check_normalizer(definition.get("normalizer"))
    cuts = name_pre_tokenizer(definition["pre_tokenizer"] or {"type": "none"}, ignores_merges=bool(model.get("ignore_merges")))
    return Vocabulary("gpt2", cuts, tokens, types, merges=[f"{left} {right}" for left, right in merges])


def _list_tokens(definition: Mapping[str, Any], num_rows: int) -> tuple[list[str], list[int]]:
    vocabulary: Mapping[str, int] = definition["model"]["vocab"]
    added = {token["id"]: token for token in definition["added_tokens"]}
    last = max([*vocabulary.values(), *added])
    if last >= num_rows:
        raise UsageError(f"the tokenizer has a token {last}, and the embeddings have {num_rows} rows: they do not belong together")
    tokens, types = [f"[PAD{row}]" for row in range(num_rows)], [int(TokenType.UNUSED)] * num_rows
    for text, index in vocabulary.items():
        tokens[index], types[index] = text, int(TokenType.NORMAL)
    for index, token in added.items():
        tokens[index], types[index] = token["content"], int(TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED)
        if token["lstrip"] or token["rstrip"]:
            logger.warning("%s takes the spaces beside it away, which GGUF cannot say", token["content"])
    return tokens, types


def _check_normalizer(normalizer: Mapping[str, Any] | None) -> None:
    if normalizer is None:
        return
    if normalizer["type"] != "NFC":
        raise UsageError(f"llama.cpp does not normalize text, and this tokenizer does ({normalizer['type']})")
    logger.warning("llama.cpp does not compose accents (NFC), as this tokenizer does: text that is not composed becomes other tokens there")


def _sentencepiece(
    definition: Mapping[str, Any], tokens: list[str], types: list[int], merges: Sequence[tuple[str, ...]]
) -> Vocabulary:  # fmt: skip
    """Where transformers ranks pairs, llama.cpp scores what a pair becomes."""
    rank: dict[str, int] = {}
    for position, pair in enumerate(merges):
        rank.setdefault("".join(pair), position)
    for index, token in enumerate(tokens):
        if types[index] == TokenType.NORMAL and _BYTE.fullmatch(token):
            types[index] = int(TokenType.BYTE)
    unknown = definition["model"].get("unk_token")
    if unknown is not None:
        types[definition["model"]["vocab"][unknown]] = int(TokenType.UNKNOWN)
    _check_merges({token for token, type in zip(tokens, types, strict=True) if type == TokenType.NORMAL}, merges)
    scores = [-float(rank.get(token, len(merges))) for token in tokens]
    return Vocabulary("llama", "default", tokens, types, scores=scores, puts_space_in_front=_puts_space_in_front(definition, tokens))


def _check_merges(pieces: Set[str], merges: Sequence[tuple[str, ...]]) -> None:
    """Scores say the same as pairs if all pairs that give one piece stand together, and every pair that gives a piece is there."""
    allowed = set(merges)
    results = ["".join(pair) for pair in merges]
    num_runs = len([*groupby(results)])
    splits = ((piece[:cut], piece[cut:]) for piece in pieces for cut in range(1, len(piece)))
    if num_runs > len(set(results)) or any(pair not in allowed for pair in splits if pieces >= {*pair}):
        logger.warning("these merges do not come from SentencePiece: llama.cpp will cut some words otherwise")


def _puts_space_in_front(definition: Mapping[str, Any], tokens: Sequence[str]) -> bool:
    normalizers = _flatten(definition.get("normalizer"), "normalizers")
    cuts = _flatten(definition.get("pre_tokenizer"), "pretokenizers")
    if unknown := {step["type"] for step in [*normalizers, *cuts]} - {"Prepend", "Replace", "Metaspace", "Split"}:
        raise UsageError(f"llama.cpp's SentencePiece tokenizer has no {' or '.join(sorted(unknown))}, which this tokenizer uses")
    if any(step.get("split", True) for step in cuts if step["type"] == "Metaspace") and any(_SPACE in token[1:] for token in tokens):
        raise UsageError("llama.cpp's SentencePiece tokenizer merges across spaces, and this one does not")
    schemes = {step["prepend_scheme"] for step in cuts if step["type"] == "Metaspace"}
    if schemes & {"first", "always"}:
        logger.warning("llama.cpp puts a space in front of every text, this tokenizer of none that begins with one%s",
                       " and of none behind a special token" if "first" in schemes else "")  # fmt: skip
    return any(step["type"] == "Prepend" for step in normalizers) or bool(schemes & {"first", "always"})


def _flatten(step: Mapping[str, Any] | None, key: str) -> list[Mapping[str, Any]]:
    if step is None:
        return []
    return list(step[key]) if step["type"] == "Sequence" else [step]
