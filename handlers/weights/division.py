"""Weights that several ranks share: refused before anything is loaded where that is impossible, and loaded share by share."""

from __future__ import annotations

from typing import Any

from handlers.config import HandlerConfig
from handlers.errors import ConfigError
from handlers.quant.formats import PLAIN
from handlers.tensor_parallel import obstacle
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.loading import weights_name

_KEY = "handler.engine.tensor_parallel"


def check_division(checkpoint: Checkpoint, config: HandlerConfig) -> None:
    """Raise ConfigError if ``handler.engine.tensor_parallel`` is more than this checkpoint and this configuration allow."""
    engine = config.engine
    if engine.tensor_parallel == 1:
        return
    if engine.name not in ("auto", "continuous"):
        raise ConfigError(f"{_KEY} is for the continuous engine, not for {engine.name}: leave handler.engine.name out")
    if not engine.process:
        raise ConfigError(f"{_KEY} needs engine processes: set handler.engine.process: true")
    if engine.speculation.method == "draft":
        raise ConfigError(f"{_KEY} cannot be combined with a draft model: set handler.engine.speculation.method to ngram or none")
    if engine.compile:
        raise ConfigError(f"{_KEY} cannot be combined with handler.engine.compile: set it to false")
    if (name := weights_name(checkpoint, config)) != PLAIN.name:
        raise ConfigError(f"{_KEY} divides plain weights only, and these are {name}: set it to 1")
    if not any(checkpoint.directory.glob("*.safetensors")):
        raise ConfigError(f"{_KEY} divides *.safetensors only: convert the weights with save_pretrained(), or set it to 1")
    if (reason := obstacle(checkpoint.settings, engine.tensor_parallel)) is not None:
        raise ConfigError(f"{_KEY} is {engine.tensor_parallel}, but {reason}")


def own_share(checkpoint: Checkpoint) -> Any:
    """Return what this process, a rank of torch.distributed's group, has of the model. Raises ConfigError where there is no group."""
    from torch import distributed

    from handlers.weights.shards import load_shard

    if not distributed.is_initialized():
        raise ConfigError(f"{_KEY} is for handlers with a continuous engine in a process of its own: set it to 1")
    return load_shard(checkpoint, distributed.get_rank(), distributed.get_world_size())
