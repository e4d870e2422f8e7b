"""The checkpoint that a benchmark serves, and its tokenizer."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from tests.bench.models import SHAPES, make_model
from tests.checkpoints import make_checkpoint

TINYCHAT = Path(__file__).parents[2] / "examples" / "tinychat" / "model"
# tinychat's, so that times can be compared although the words cannot.
_SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}


def choose_checkpoint(given: Path | None, scratch: Path) -> Path:
    """Return the checkpoint that was asked for, else tinychat, else one of its shape with random weights, made in ``scratch``."""
    if given is not None:
        return given
    return TINYCHAT if (TINYCHAT / "config.json").exists() else make_checkpoint(scratch / "random", dtype="bfloat16", **_SHAPE)


def find_checkpoint(model: str, cache: Path) -> Path:
    """Return the checkpoint of that name (tinychat, or one of a real model's shape and random weights, see models.py), or at that path."""
    if model == "tinychat":
        return choose_checkpoint(None, cache)
    return make_model(model, cache) if model in SHAPES else Path(model)


class PlainTokenizer:
    """A checkpoint's tokenizer without special tokens, and without the seconds that importing transformers takes."""

    def __init__(self, checkpoint: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))

    def encode(self, text: str) -> list[int]:
        """Return token ids."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, token_ids: list[int]) -> str:
        """Return text."""
        return self._tokenizer.decode(token_ids)
