"""Make checkpoints of real models' shapes with random weights: a bf16 Llama with tied embeddings, and a tokenizer whose vocabulary is full.

    python -m tests.bench.models m135 --cache /tmp/models

Random weights cost what trained ones cost, and every server loads them. A token that is no plain text (bytes of other scripts, special
tokens, the end of the text) is never the likeliest one: its embedding, which is also its row of the LM head, is zero. So answers have the
length that was asked for with servers that cannot ignore the end, and their text is what their tokens were.
"""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CACHE = Path.home() / ".cache" / "marquee-bench"
_PAD, _BOS, _EOS = SPECIAL_TOKENS = ("<|pad|>", "<|bos|>", "<|end|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_LETTERS = pre_tokenizers.ByteLevel.alphabet()
# Logits of a standard deviation of about 2: neither a lottery nor a certainty.
_LOGITS_STD = 2.0


@dataclass(frozen=True)
class Shape:
    """The sizes of a decoder of the Llama family; the embeddings are tied."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    max_tokens: int = 2048

    @property
    def linears(self) -> list[tuple[int, int]]:
        """The matrices of one layer as (outputs, inputs), each as the checkpoint has it."""
        kv_hidden = self.kv_heads * (self.hidden // self.heads)
        attention = [(self.hidden, self.hidden), (kv_hidden, self.hidden), (kv_hidden, self.hidden), (self.hidden, self.hidden)]
        return attention + [(self.intermediate, self.hidden)] * 2 + [(self.hidden, self.intermediate)]

    @property
    def num_parameters(self) -> int:
        """All matrices; the norms are not worth counting."""
        return self.layers * sum(rows * columns for rows, columns in self.linears) + self.vocabulary * self.hidden

    def config(self, **more: Any) -> Any:
        """Return transformers' configuration of a Llama of this shape."""
        from transformers import LlamaConfig

        return LlamaConfig(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            intermediate_size=self.intermediate,
            vocab_size=self.vocabulary,
            max_position_embeddings=self.max_tokens,
            **more,
        )

    @classmethod
    def of(cls, checkpoint: Path) -> Shape:
        """Read a checkpoint's configuration."""
        config = json.loads((checkpoint / "config.json").read_text())
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "intermediate_size", "vocab_size")
        return cls(*(config[size] for size in sizes), max_tokens=config["max_position_embeddings"])


SHAPES = {
    "m15": Shape(384, 6, 6, 2, 1024, 8192),
    "m135": Shape(576, 30, 9, 3, 1536, 49152),  # SmolLM-135M
    "m360": Shape(960, 32, 15, 5, 2560, 49152),  # SmolLM-360M
    "m1b": Shape(2048, 22, 32, 4, 5632, 32000),  # TinyLlama-1.1B, which does not tie its embeddings
}


def make_model(name: str, cache: Path) -> Path:
    """Return the checkpoint called ``name`` (see SHAPES); it is made once."""
    directory = cache / "models" / name
    return directory if directory.exists() else make_checkpoint(SHAPES[name], directory)


def make_checkpoint(shape: Shape, directory: Path, *, tokenizer_size: int | None = None, device: str = "cpu") -> Path:
    """Return ``directory``, which is new, with a checkpoint of this shape; the weights are drawn on ``device``.

    A tokenizer of 128,000 tokens takes a minute to train: with a smaller ``tokenizer_size`` the model never says the other tokens.
    """
    unfinished = directory.with_name(f"{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    tokenizer = train_tokenizer(tokenizer_size or shape.vocabulary)
    _write_tokenizer(tokenizer, unfinished, shape.max_tokens)
    _write_weights(shape, tokenizer, unfinished, device)
    return unfinished.rename(directory)


def train_tokenizer(size: int, seed: int = 0) -> Tokenizer:
    """Return a byte-level BPE tokenizer of exactly ``size`` tokens, trained on words that were made up.

    It splits text as SmolLM's does (digits one by one, then GPT-2's pattern): servers with tokenizers of their own know that one.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=sorted(_LETTERS), min_frequency=1, show_progress=False
    )
    tokenizer.train_from_iterator(_made_up_text(2 * size, random.Random(seed)), trainer)
    if tokenizer.get_vocab_size() != size:
        raise RuntimeError(f"the text gave a vocabulary of {tokenizer.get_vocab_size()} tokens, not {size}")
    return tokenizer


def _made_up_text(num_words: int, rng: random.Random) -> Iterator[str]:
    """Yield lines of words from random syllables, the earlier words more often (Zipf), so that merges have an order."""
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in ("a", "e", "i", "o", "u", "ai", "or", "en")]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 5))) for _ in range(num_words)]
    weights = [1 / rank for rank in range(1, num_words + 1)]
    yield from (" ".join(words[start : start + 64]) for start in range(0, num_words, 64))
    for _ in range(num_words // 64):
        yield " ".join(rng.choices(words, weights, k=64)) + rng.choice(".!?,") + str(rng.randint(0, 9999))


def _write_tokenizer(tokenizer: Tokenizer, directory: Path, max_tokens: int) -> None:
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "chat_template.jinja").write_text(_CHAT_TEMPLATE)
    names = {"pad_token": _PAD, "bos_token": _BOS, "eos_token": _EOS, "tokenizer_class": "PreTrainedTokenizerFast"}
    rest = {"clean_up_tokenization_spaces": False, "model_max_length": max_tokens, "padding_side": "left"}
    (directory / "tokenizer_config.json").write_text(json.dumps(names | rest, indent=2))


def _write_weights(shape: Shape, tokenizer: Tokenizer, directory: Path, device: str) -> None:
    """Write config.json, generation_config.json and model.safetensors.

    Each matrix keeps the scale of what goes through it (standard deviation 1/√inputs), so that a random model's activations look like a
    model's; the final norm scales the logits.
    """
    import torch
    from transformers import GenerationConfig, LlamaForCausalLM

    special = {"pad_token_id": _PAD, "bos_token_id": _BOS, "eos_token_id": _EOS}
    ids = {key: tokenizer.token_to_id(token) for key, token in special.items()}
    config = shape.config(tie_word_embeddings=True, **ids)
    torch.manual_seed(0)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to(torch.bfloat16).to_empty(device=device).tie_weights()
    model.generation_config = GenerationConfig(**ids)
    with torch.no_grad():
        for parameter in model.parameters():
            _fill(parameter)
        embeddings = model.get_input_embeddings().weight
        embeddings[_unspoken(tokenizer)] = 0.0
        embeddings[tokenizer.get_vocab_size() :] = 0.0
        model.model.norm.weight.fill_(_LOGITS_STD)
    model.save_pretrained(directory)


def _fill(parameter: Any) -> None:
    if parameter.dim() == 1:
        parameter.fill_(1.0)
    else:
        parameter.normal_(std=1 / math.sqrt(parameter.shape[1]))


def _unspoken(tokenizer: Tokenizer) -> list[int]:
    """Return the tokens that are no plain text."""
    return [index for token, index in tokenizer.get_vocab().items() if token in SPECIAL_TOKENS or not token.replace("Ġ", " ").isascii()]


def main(name: str, cache: Annotated[Path, typer.Option(help="where checkpoints are kept")] = CACHE) -> None:
    """Make one checkpoint and say where it is."""
    print(make_model(name, cache))


if __name__ == "__main__":
    typer.run(main)
