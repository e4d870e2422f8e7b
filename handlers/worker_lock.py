"""One worker a continuous model: a lock that a second worker cannot take."""

from __future__ import annotations

import fcntl
import logging
from typing import IO

from handlers.errors import ConfigError
from handlers.frontend_process import refuse_more_workers
from handlers.torchrun import frontend_pid
from handlers.worker_directory import worker_directory

logger = logging.getLogger(__name__)


def claim_only_worker(model: str, version: str) -> IO[str]:
    """Claim ``model`` in this server for this worker, until the returned lock is closed; raise ConfigError if another worker has it.

    Why: with ``continuousBatching`` an idle second worker keeps the model's lock inside its queue poll, and the busy one stalls until
    another request comes (TorchServe 0.12).
    """
    directory = worker_directory(frontend_pid(), model, version)
    directory.mkdir(parents=True, exist_ok=True)
    lock = (directory / "worker.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        refusal = (
            f"{model} {version} already has a worker, and a continuous model takes only one: leave min_worker and max_worker at 1, and "
            f"scale its engines instead: `marquee models scale {model} N`, or handler.engine.replicas before it starts"
        )
        logger.error(refusal)  # now: this process is ended with the order that it undoes
        refuse_more_workers(model, version)
        raise ConfigError(refusal) from None
    return lock
