"""Load a model for measuring just as a server on this machine loads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archiver.errors import ArchiverError
from handlers.config import EngineConfig, HandlerConfig
from handlers.errors import ConfigError

# Our own engine, so that a GGUF file becomes a model whose logits can be seen, and is not left to llama.cpp.
_CONFIG = HandlerConfig(engine=EngineConfig(name="continuous"))


def load_as_served(path: Path) -> Any:
    """Return the transformers model of a checkpoint, plain or quantized, as handlers load it for the continuous engine.

    So it has the dtype that it is served in (bfloat16 where the processor has instructions for it), and quantized weights stay packed.
    Raises ArchiverError, in one line, for what cannot be loaded here.
    """
    from handlers.quant.machine import Machine
    from handlers.weights.checkpoint import Checkpoint
    from handlers.weights.loading import choose_loader

    try:
        checkpoint = Checkpoint.open(path, _CONFIG.model)
        load = choose_loader(checkpoint, _CONFIG, Machine.here()) or checkpoint.load
        return load()
    except ConfigError as error:
        raise ArchiverError(f"{path} cannot be measured: {error}") from error
