"""How many KV blocks, and sequences of what length, fit into memory."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

from handlers.config import EngineConfig
from handlers.errors import ConfigError

logger = logging.getLogger(__name__)

_GIB = 1 << 30
_MEMORY_KEYS = "handler.engine.kv_memory_gib (on a GPU memory_fraction)"
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")


@dataclass(frozen=True, slots=True)
class Capacity:
    """``num_blocks`` KV blocks, in which a sequence of ``max_model_len`` tokens always fits."""

    num_blocks: int
    max_model_len: int


def plan_capacity(config: EngineConfig, *, token_bytes: int, model_len: int | None, budget_bytes: int) -> Capacity:
    """Divide the KV memory into blocks: as many as it holds, but no more than ``max_running`` sequences of full length can use.

    ``token_bytes`` is what all layers together keep of one token, ``model_len`` the model's own limit (None: it names none). A length that
    the operator set must fit; the model's own is shortened to what does. Raises ConfigError.
    """
    wanted = wanted_len(config, model_len)
    num_fitting = budget_bytes // (token_bytes * config.block_tokens)
    fitting = num_fitting * config.block_tokens
    memory = f"{budget_bytes / _GIB:.3g} GiB of KV memory hold {fitting} tokens of {token_bytes} bytes"
    if fitting < 2 or (config.max_model_len is not None and fitting < wanted):
        raise ConfigError(f"handler.engine.max_model_len is {wanted}, but {memory}: lower it, or raise {_MEMORY_KEYS}")
    max_model_len = min(wanted, fitting)
    if max_model_len < wanted:
        logger.warning("%s: sequences end there, not at the model's %d; raise %s for longer ones", memory, wanted, _MEMORY_KEYS)
    num_useful = config.max_running * math.ceil(max_model_len / config.block_tokens)
    return Capacity(min(num_fitting, num_useful), max_model_len)


def model_len(model_config: Any) -> int | None:
    """Return the longest sequence that a transformers configuration allows, in tokens; None when it does not say.

    Rotary embeddings that change with the length of the longest sequence in a batch would make a request's output depend on its neighbours:
    such a model is served up to the length below which they are constant.
    """
    text_config = model_config.get_text_config()
    longest: int | None = max(getattr(text_config, "max_position_embeddings", None) or 0, 0) or None  # XLNet says -1
    rope = getattr(text_config, "rope_parameters", None) or {}
    if rope.get("rope_type") in _LENGTH_DEPENDENT_ROPE:
        return rope.get("original_max_position_embeddings") or longest
    return longest


def wanted_len(config: EngineConfig, model_len: int | None) -> int:
    """Return the longest sequence that is to be served: what the operator set, else the model's own. Raises ConfigError."""
    if config.max_model_len is None and model_len is None:
        raise ConfigError("the model names no longest sequence: set handler.engine.max_model_len, in tokens")
    if config.max_model_len is not None and model_len is not None and config.max_model_len > model_len:
        raise ConfigError(f"handler.engine.max_model_len is {config.max_model_len}, but the model takes at most {model_len} tokens")
    wanted = config.max_model_len or model_len
    assert wanted is not None
    return wanted
