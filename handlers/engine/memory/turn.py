"""One engine at a time loads on a GPU: two that size their KV caches by the same free memory would both take it."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from handlers.errors import ConfigError

if TYPE_CHECKING:
    from handlers.engine.memory.device import DeviceMemory

logger = logging.getLogger(__name__)

_SHARED = Path("/tmp")
"""And not TMPDIR, which differs from server to server."""


@contextmanager
def loading_turn() -> Iterator[DeviceMemory]:
    """Wait until no other engine of this user loads on the GPUs that this process may use, and keep them waiting meanwhile.

    Gives the memory of the device that a model goes to: of the first GPU, from before this process takes any of it. Nobody waits for a CPU.
    """
    import torch

    from handlers.engine.memory.device import CudaMemory, HostMemory

    if not torch.cuda.is_available():
        yield HostMemory()
        return
    uuids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
    with exclusive(uuids):
        yield CudaMemory(torch.device("cuda", 0))


@contextmanager
def exclusive(uuids: Iterable[str], root: Path = _SHARED) -> Iterator[None]:
    """Hold the locks of some GPUs; the end of the process gives them back, too. In one order for all, or two could wait for each other."""
    directory = _private_directory(root)
    with ExitStack() as locks:
        for uuid in sorted(set(uuids)):
            file = locks.enter_context((directory / f"gpu-{uuid}.lock").open("w"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("waiting for another engine to have loaded on GPU %s", uuid)
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _private_directory(root: Path) -> Path:
    """Return ``<root>/marquee-<uid>``, open to this user only: a lock that others could hold would let them stop us."""
    directory = root / f"marquee-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    if directory.stat().st_uid != os.getuid():
        raise ConfigError(f"{directory} belongs to another user; remove it")
    return directory
