"""Make tiny checkpoints of every family that is converted, and of SentencePiece's tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.checkpoints import CHAT_TEMPLATE, SPECIAL_TOKENS, make_tokenizer

TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0 + i / 8 for i in range(8)],
    "long_factor": [2.0 + i for i in range(8)],
    "original_max_position_embeddings": 128,
}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "tie_word_embeddings": True}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-tied-biased": ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True}),
    "llama-wide-heads": ("llama", {"head_dim": 32}),
    "llama-3.1": ("llama", {"rope_parameters": LLAMA3}),
    "llama-linear": ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}}),
    "mistral": ("mistral", {"sliding_window": None}),
    "qwen2": ("qwen2", {}),
    "qwen2-yarn": (
        "qwen2",
        {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 32}},
    ),
    "qwen3": ("qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "smollm3": ("smollm3", {}),
    "phi3": ("phi3", {"sliding_window": None}),
    "phi3-longrope": ("phi3", {"sliding_window": None, "max_position_embeddings": 512, "rope_parameters": LONGROPE}),
    "gemma2": ("gemma2", GEMMA),
    "gemma3": ("gemma3_text", GEMMA),
}

AWKWARD_TEXTS = [
    "the quick brown fox",
    " a leading space",
    "a trailing space ",
    "   three  two one ",
    "\n\nlines\n \n  indented\r\n\ttabs\t\t",
    "1 12 123 1234 12345 3.14159 2024-01-31 ½ ² Ⅻ ٣٤٥",
    "I'll we've it's DON'T I'LL y'all 'tis",
    "naïve café Ångström ŒUVRE ßtraße İstanbul",
    "Ελληνικά кириллица ПРИВЕТ мир עברית العربية हिन्दी ไทย",
    "漢字とかな 中文字符 한국어 ，。！？",
    "😀 👩‍👩‍👧‍👦 🇪🇺 ✌🏽",
    "camelCase snake_case kebab-case SCREAMING Mixed123abc",
    'if (a[0] != b) { return "x\\n"; } // +=-*/ <<>>',
    "…—–“quotes”‘single’ €£¥ ©®™",
    "zero\u200bwidth\u00a0nbsp\u3000wide\u2028sep",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaa" + " " * 20 + "b",
    "http://example.com/?q=1&r=%20#x",
]


def make_family_checkpoint(directory: Path, family: str, *, tokenizer: Any = None, seed: int = 0, **changes: Any) -> Path:
    """Write a random model of a row of FAMILIES in float32; norms and biases are random too, so that no mix-up goes unseen."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    tokenizer = tokenizer or make_tokenizer()
    model_type, shape = FAMILIES[family]
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer) + 3, **TINY | shape | changes)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            std = 0.2 if parameter.dim() > 1 else 0.3
            parameter.normal_(mean=float(name.endswith("norm.weight") and not model_type.startswith("gemma")), std=std)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_byte_level_tokenizer(cuts: list[Any], *, ignores_merges: bool = False) -> Any:
    """Return a byte-level BPE tokenizer that cuts text by ``cuts``, with special tokens and one that is not."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(ignore_merges=ignores_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(cuts)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, min_frequency=1, show_progress=False
    )
    tokenizer.train_from_iterator(AWKWARD_TEXTS * 2, trainer)
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_sentencepiece_tokenizer(scheme: str | None = None) -> Any:
    """Return a BPE tokenizer with byte fallback, as transformers makes of SentencePiece's.

    ``scheme`` is that of the Metaspace cut; None: a normalizer puts the spaces in, as Llama 2's does.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    text = ["the quick brown fox jumps over the lazy dog and then it does so again and again, né 3 times"] * 8
    trained.train_from_iterator(text, trainers.BpeTrainer(vocab_size=160, show_progress=False))
    pieces = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    special = ["<unk>", "<s>", "</s>"]
    vocabulary = {token: index for index, token in enumerate([*special, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces])}
    model = models.BPE(vocab=vocabulary, merges=_all_merges(pieces), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    if scheme is None:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _all_merges(pieces: list[str]) -> list[tuple[str, str]]:
    """Every way to put a piece together, earlier pieces first: SentencePiece has pieces with scores, and no merges."""
    known = set(pieces)
    splits = ((piece[:cut], piece[cut:]) for piece in pieces for cut in range(1, len(piece)))
    return [(left, right) for left, right in splits if left in known and right in known]
