"""Let a model write the text that it is measured on, if nobody has any: samples of the very distribution that quantizing should keep."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from archiver.quantize.quality.generation import generate, running_engine
from archiver.quantize.quality.loading import load_as_served
from archiver.quantize.quality.text import Text
from archiver.quantize.samples import load_tokenizer
from handlers.requests import SamplingParams

_TEXTS = 64
_NEW_TOKENS = 128
# Everyday turns of many kinds; what matters is that the answers differ.
_TURNS = (
    "Tell me about yourself.",
    "What is a good plan for a rainy day?",
    "Explain how a bicycle stays upright.",
    "Write a short story about a lighthouse.",
    "What is 17 times 24? Show each step.",
    "List five animals and one fact about each.",
    "What makes a meeting useful?",
    "How do I cook rice?",
    "Write a Python function that reverses a string.",
    "What should I look at before I rent a flat?",
    "Compare trains and planes for a trip of 600 km.",
    "Give me advice on learning a language.",
    "Why is the sky blue?",
    "Write a polite mail that declines an invitation.",
    "What changed in the nineteenth century?",
    "Describe a day at the sea.",
)


@lru_cache(maxsize=1)  # a comparison measures many recipes on the texts of one model
def write_texts(source: Path) -> tuple[Text, ...]:
    """Return what the model samples at temperature 1, the same each time, after given openings."""
    openings = _openings(load_tokenizer(source))
    prompts = [openings[index % len(openings)] for index in range(_TEXTS)]
    params = [SamplingParams(max_tokens=_NEW_TOKENS, seed=index) for index in range(_TEXTS)]
    with running_engine(load_as_served(source)) as engine:
        texts = generate(engine, prompts, params)
    return tuple(Text((*prompt, *text), num_given=len(prompt)) for prompt, text in zip(prompts, texts, strict=True) if text)


def encode_turn(text: str, tokenizer: Any) -> list[int]:
    """Return the tokens after which the model answers a user's ``text``, or without a chat template continues it."""
    if not tokenizer.chat_template:
        return list(tokenizer(text)["input_ids"])
    chat = [{"role": "user", "content": text}]
    return list(tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"])


def _openings(tokenizer: Any) -> list[list[int]]:
    """Return user's turns, or for a model that knows no turns the token that begins a text."""
    if tokenizer.chat_template:
        return [encode_turn(turn, tokenizer) for turn in _TURNS]
    starts = [token for token in (tokenizer.bos_token_id, tokenizer.eos_token_id) if token is not None]
    return [starts[:1] or encode_turn("\n", tokenizer)]
