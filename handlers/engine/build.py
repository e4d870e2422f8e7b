"""From a loaded model to an engine client."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from handlers.config import EngineConfig
from handlers.engine.surroundings import Surroundings
from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from handlers.engine.client import EngineClient

logger = logging.getLogger(__name__)


def build_engine_client(
    model: PreTrainedModel | GgufFile,
    config: EngineConfig,
    *,
    eos_token_ids: frozenset[int],
    max_queued_tokens: int | None = None,
    around: Surroundings = Surroundings(),
) -> EngineClient:
    """Start an engine over ``model``, which belongs to it from now on: its attention is replaced, ``model.generate`` no longer works.

    A GGUF file is for llama.cpp to load. What is ``around`` the model is for the continuous engine. Raises ConfigError when no engine that
    ``config.name`` allows can run the model or do what ``config`` says, or when its KV cache does not fit into memory.
    """
    # Here and not above, so that whoever composes handlers may import this module without torch.
    from handlers.engine.compatibility import Unfit
    from handlers.engine.generate_engine import build_generate_engine
    from handlers.engine.thread import ThreadClient

    _check_speculation(model, config)
    if isinstance(model, GgufFile):
        from handlers.engine.llama_cpp.build import build_llama_cpp_engine

        return ThreadClient(build_llama_cpp_engine(model, config, eos_token_ids=eos_token_ids, max_queued_tokens=max_queued_tokens))
    if config.name == "llamacpp":
        raise ConfigError("handler.engine.name llamacpp runs GGUF files only; make one: marquee quantize MODEL --recipe gguf:Q4_K_M")
    if config.name != "generate":
        from handlers.engine.continuous_engine import build_continuous_engine

        own_attention = model.config._attn_implementation
        try:
            return ThreadClient(
                build_continuous_engine(model, config, eos_token_ids=eos_token_ids, max_queued_tokens=max_queued_tokens, around=around)
            )
        except Unfit as error:
            if around.ranks is not None or config.speculation.method != "none":  # no other engine shares a model, or guesses
                setting = "speculation" if around.ranks is None else "tensor_parallel"
                raise ConfigError(f"{error}. Leave handler.engine.{setting} out") from error
            if config.name == "continuous":
                raise ConfigError(f"{error}. Set handler.engine.name: generate") from error
            model.set_attn_implementation(own_attention)
            logger.warning("%s; it runs on transformers' generate instead, in batches that do not grow", error)
    return ThreadClient(build_generate_engine(model, config, eos_token_ids=eos_token_ids, max_queued_tokens=max_queued_tokens))


def _check_speculation(model: PreTrainedModel | GgufFile, config: EngineConfig) -> None:
    engine = "llamacpp" if isinstance(model, GgufFile) else config.name
    if config.speculation.method != "none" and engine in ("llamacpp", "generate"):
        raise ConfigError(f"the engine {engine} makes no guesses: set handler.engine.speculation.method: none")
