"""How byte-level BPE tokenizers cut text before they merge, and llama.cpp's names for it.

llama.cpp has these cuts in its code and finds them by the name in ``tokenizer.ggml.pre``. The name is found by comparing definitions: the
regular expressions below are those that the models' tokenizer.json files bring along, which is what they are recognised by.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from archiver.errors import UsageError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SAME_CONTRACTIONS = "'(?i:[sdmt]|ll|ve|re)"
_WORD = r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTIONS + _WORD + r"|\p{N}{1,3}" + _REST
QWEN2 = _CONTRACTIONS + _WORD + r"|\p{N}" + _REST
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = "the cut that is built into ByteLevel"
_DIGITS = "each digit alone"

logger = logging.getLogger(__name__)

Cuts = tuple[str, ...]

_NAMES: Mapping[tuple[Cuts, bool], str] = MappingProxyType(
    {
        ((_GPT2,), False): "gpt-2",
        ((_DIGITS, _GPT2), False): "smollm",
        ((LLAMA3,), True): "llama-bpe",
        ((LLAMA3,), False): "smaug-bpe",
        ((QWEN2,), False): "qwen2",
        ((TEKKEN,), True): "tekken",
    }
)
"""By the cuts, one after the other, and whether words that are in the vocabulary are taken whole (``ignore_merges``)."""


def name_pre_tokenizer(definition: Mapping[str, Any], *, ignores_merges: bool) -> str:
    """Return llama.cpp's name for a ``pre_tokenizer`` of a tokenizer.json; raise UsageError if it has none: guesses cost quality."""
    cuts = tuple(cut for step in _steps(definition) for cut in _cuts(step))
    name = _NAMES.get((cuts, ignores_merges))
    if name is None:
        known = ", ".join(sorted(set(_NAMES.values())))
        raise UsageError(f"llama.cpp has no name for how this tokenizer cuts text ({'; '.join(cuts) or 'not at all'}); known: {known}")
    if name == "tekken":
        logger.warning("llama.cpp's tekken knows capitals in ASCII only: words with other capitals may become other tokens there")
    return name


def _steps(definition: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    steps = definition["pretokenizers"] if definition["type"] == "Sequence" else [definition]
    return list(steps)


def _cuts(step: Mapping[str, Any]) -> Cuts:
    match step:
        case {"type": "ByteLevel", "add_prefix_space": True}:
            return ("a space put in front",)
        case {"type": "ByteLevel"}:
            return (_GPT2,) if step.get("use_regex", True) else ()
        case {"type": "Digits", "individual_digits": True}:
            return (_DIGITS,)
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated" | "isolated", "invert": False}:
            return (str(pattern).replace(_SAME_CONTRACTIONS, _CONTRACTIONS),)
        # What is between the matches is dropped, and the matches cover everything.
        case {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed" | "removed", "invert": True}:
            return (str(pattern).replace(_SAME_CONTRACTIONS, _CONTRACTIONS),)
    return (str(step["type"]),)
