"""What a checkpoint says beside weights and vocabulary, in GGUF's words: special tokens, the chat template, how to sample."""

from __future__ import annotations

import logging
from typing import Any

from archiver.errors import UsageError
from archiver.quantize.gguf.families import Metadata

logger = logging.getLogger(__name__)

# What ends an answer: llama.cpp stops at each of these.
_ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
_SAMPLING = {"temperature": "temp", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p", "repetition_penalty": "penalty_repeat"}


def describe_special_tokens(tokenizer: Any, generation: Any) -> Metadata:
    """Return the keys for a transformers tokenizer and generation configuration."""
    ids = {"bos_token_id": tokenizer.bos_token_id, "unknown_token_id": tokenizer.unk_token_id, "padding_token_id": tokenizer.pad_token_id}
    ids |= dict(zip(_ENDS, _end_ids(tokenizer, generation), strict=False))
    template = {"tokenizer.chat_template": tokenizer.chat_template} if isinstance(tokenizer.chat_template, str) else {}
    return {f"tokenizer.ggml.{key}": index for key, index in ids.items() if index is not None} | _describe_additions(tokenizer) | template


def describe_sampling(generation: Any) -> Metadata:
    """Return the keys for what the checkpoint's author recommends; what is not recommended has none."""
    if generation.do_sample is False:
        return {"general.sampling.temp": 0.0}
    given = {ours: getattr(generation, theirs, None) for theirs, ours in _SAMPLING.items()}
    return {f"general.sampling.{key}": int(value) if key == "top_k" else float(value) for key, value in given.items() if value is not None}


def _end_ids(tokenizer: Any, generation: Any) -> list[int]:
    """The tokens at which transformers stops, the tokenizer's own first."""
    stops = generation.eos_token_id
    stops = [stops] if isinstance(stops, int) else list(stops or [])
    first = tokenizer.eos_token_id
    ends = [first, *(stop for stop in stops if stop != first)] if first in stops or not stops else stops
    ends = [end for end in ends if end is not None]
    if len(ends) > len(_ENDS):
        logger.warning("GGUF has room for %d tokens that end an answer, and this model has %d: %s", len(_ENDS), len(ends), ends)
    return ends


def _describe_additions(tokenizer: Any) -> Metadata:
    """Whether the tokenizer adds a first and a last token by itself: tried, since a checkpoint has several ways to say so."""
    plain, full = (tokenizer("a", add_special_tokens=added)["input_ids"] for added in (False, True))
    adds_first, adds_last = full[: -len(plain)][:1] == [tokenizer.bos_token_id], full[-1:] == [tokenizer.eos_token_id]
    if full != [tokenizer.bos_token_id] * adds_first + plain + [tokenizer.eos_token_id] * adds_last:
        raise UsageError(f"the tokenizer adds more than a first and a last token to a text ({full} for {plain}), which GGUF cannot say")
    return {"tokenizer.ggml.add_bos_token": adds_first, "tokenizer.ggml.add_eos_token": adds_last}
