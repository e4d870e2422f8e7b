"""The tokenizer that a GGUF file carries, as the tokenizers library runs it.

The metadata keys and what they mean: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer. How text is split before
byte-pair merges is named, not written down, in ``tokenizer.ggml.pre``: the patterns are those of the models that the names stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
_SPACE = "\u2581"

_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_CASED_WORDS = rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT_2 = ""
_PATTERNS = {
    "gpt-2": _GPT_2,
    "smollm": r"\p{N}",
    "llama-bpe": rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "qwen2": rf"{_CONTRACTION}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "tekken": rf"{_CASED_WORDS}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
}
_SAME_AS = {
    "phi-2": "gpt-2",
    "starcoder": "smollm",
    "refact": "smollm",
    "command-r": "smollm",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "falcon3": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
}
_SPLITS_BY_GPT_2 = frozenset({"gpt-2", "smollm"})
"""These split what their pattern left by GPT-2's as well."""
_TAKES_WHOLE_WORDS = frozenset({"llama-bpe", "tekken"})
"""These take a word that is in the vocabulary without looking at merges."""
_BEGINS = frozenset({"llama-bpe", "tekken"})
"""Where the file does not say whether a text begins with its token, it does for these."""


def read_tokenizer(file: GgufFile) -> Any:
    """Return a transformers tokenizer of a file's vocabulary, special tokens and chat template; raise ConfigError for an unknown kind."""
    from transformers import PreTrainedTokenizerFast

    vocabulary = _Vocabulary(file)
    names = {f"{name}_token": token for name in ("bos", "eos", "unk", "pad") if (token := vocabulary.special_token(name)) is not None}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=vocabulary.tokenizer(), **names)
    tokenizer.chat_template = file.metadata.get("tokenizer.chat_template")
    return tokenizer


class _Vocabulary:
    """The ``tokenizer.ggml`` section of a file's metadata."""

    _IDS: Mapping[str, str] = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._tokens: tuple[str, ...] = self._get("tokens", ())
        self._kinds: tuple[int, ...] = self._get("token_type", ())
        pre = self._get("pre", "default")
        self._pre = _SAME_AS.get(pre, pre)

    def special_token(self, name: str) -> str | None:
        token_id = self._get(f"{self._IDS[name]}_token_id")
        return self._tokens[token_id] if isinstance(token_id, int) and 0 <= token_id < len(self._tokens) else None

    def tokenizer(self) -> Tokenizer:
        from tokenizers import Tokenizer

        if isinstance(whole := self._file.metadata.get("tokenizer.huggingface.json"), str):
            return Tokenizer.from_str(whole)
        kind = self._get("model")
        if kind not in ("gpt2", "llama"):
            raise self._unusable(f"of kind {kind!r}")
        tokenizer = self._byte_level() if kind == "gpt2" else self._sentence_piece()
        self._add_special_tokens(tokenizer)
        self._add_ends(tokenizer, begins=kind == "llama" or self._pre in _BEGINS)
        return tokenizer

    def _byte_level(self) -> Tokenizer:
        from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

        if self._pre not in _PATTERNS:
            raise self._unusable(f"that splits text in the way {self._pre!r}")
        merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in self._get("merges", ()))]
        model = models.BPE(self._ids(), merges, ignore_merges=self._pre in _TAKES_WHOLE_WORDS)
        tokenizer = Tokenizer(model)
        if self._pre == "qwen2":
            tokenizer.normalizer = normalizers.NFC()
        pattern = _PATTERNS[self._pre]
        split = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self._pre in _SPLITS_BY_GPT_2)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, to_bytes])
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer

    def _sentence_piece(self) -> Tokenizer:
        from tokenizers import Tokenizer, decoders, models, normalizers

        unknown = self.special_token("unk")
        tokenizer = Tokenizer(models.BPE(self._ids(), self._merges_by_score(), unk_token=unknown, fuse_unk=True, byte_fallback=True))
        to_marks = normalizers.Replace(" ", _SPACE)
        to_text = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
        if self._get("add_space_prefix", True):
            tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), to_marks])
            tokenizer.decoder = decoders.Sequence([*to_text, decoders.Strip(" ", 1, 0)])
        else:
            tokenizer.normalizer = to_marks
            tokenizer.decoder = decoders.Sequence(to_text)
        return tokenizer

    def _ids(self) -> dict[str, int]:
        return {token: token_id for token_id, token in enumerate(self._tokens)}

    def _merges_by_score(self) -> list[tuple[str, str]]:
        """Return the merges that SentencePiece would make, the best score first: of any two tokens that are a third side by side."""
        ids, scores = self._ids(), self._get("scores", ())
        if len(scores) != len(self._tokens):
            raise self._unusable("without a score for every token")
        merges = [
            (-scores[token_id], ids[token[:split]], token[:split], token[split:])
            for token, token_id in ids.items()
            for split in range(1, len(token))
            if token[:split] in ids and token[split:] in ids
        ]
        return [(left, right) for _, _, left, right in sorted(merges)]

    def _add_special_tokens(self, tokenizer: Tokenizer) -> None:
        from tokenizers import AddedToken

        kinds = {token: kind for token, kind in zip(self._tokens, self._kinds, strict=False) if token}
        special = [AddedToken(token, special=True, normalized=False) for token, kind in kinds.items() if kind in (_UNKNOWN, _CONTROL)]
        plain = [AddedToken(token, special=False, normalized=False) for token, kind in kinds.items() if kind == _USER_DEFINED]
        tokenizer.add_special_tokens(special)
        tokenizer.add_tokens(plain)

    def _add_ends(self, tokenizer: Tokenizer, *, begins: bool) -> None:
        """Have texts begin and end with the tokens for that, where the file says so."""
        from tokenizers.processors import TemplateProcessing

        first = self.special_token("bos") if self._get("add_bos_token", begins) else None
        last = self.special_token("eos") if self._get("add_eos_token", False) else None
        ends = {token: tokenizer.token_to_id(token) for token in (first, last) if token is not None}
        if ends:
            template = [part for part in (first, "$A", last) if part is not None]
            tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=list(ends.items()))

    def _get(self, key: str, default: Any = None) -> Any:
        return self._file.metadata.get(f"tokenizer.ggml.{key}", default)

    def _unusable(self, reason: str) -> ConfigError:
        name = self._file.path.name
        return ConfigError(f"{name} has a tokenizer {reason}, which is not known; put the model's tokenizer.json beside the file")
