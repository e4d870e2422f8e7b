"""Workers that TorchServe starts through torchrun, as ``parallelType: tp`` in model-config.yaml asks it to: one for each GPU of a model.

The frontend sends all of them the same requests, but not in the same batches (TorchServe 0.12), so that they cannot compute together. The
first one serves, with ranks of its own behind its engine; the others load nothing and never answer (``idle_worker``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from handlers.config import HandlerConfig
from handlers.errors import ConfigError

logger = logging.getLogger(__name__)

_MARK = "TORCHELASTIC_RUN_ID"
"""Set in all that torchrun starts, and LOCAL_RANK and LOCAL_WORLD_SIZE with it (PyTorch's documentation, "torchrun")."""


def is_idle_worker() -> bool:
    """Whether this process is one of those that do nothing."""
    return _MARK in os.environ and os.environ["LOCAL_RANK"] != "0"


def frontend_pid() -> int:
    """Return the process id of this worker's frontend: its parent, or the parent of the torchrun that has started it."""
    parent = os.getppid()
    if _MARK not in os.environ:
        return parent
    import psutil  # here, as the base install has none

    frontend: int = psutil.Process(parent).ppid()
    return frontend


def with_ranks(config: HandlerConfig, keys: Mapping[str, Any]) -> HandlerConfig:
    """Return the configuration of the worker that serves a continuous model: it has as many ranks as torchrun has started workers, or more.

    ``keys`` are those of the frontend. Raises ConfigError for the pipeline stages that they may ask for, too.
    """
    if _MARK not in os.environ or not keys.get("continuousBatching"):
        return config
    if (kind := keys.get("parallelType")) != "tp":
        raise ConfigError(f"parallelType: {kind} is not supported: leave it and torchrun out, and set handler.engine.tensor_parallel")
    logger.info("[PID]%d", os.getpid())  # what the frontend reads: of its workers' process ids it keeps the last
    num_ranks = max(config.engine.tensor_parallel, int(os.environ["LOCAL_WORLD_SIZE"]))
    return replace(config, engine=replace(config.engine, tensor_parallel=num_ranks))
