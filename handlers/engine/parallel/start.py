"""Start the ranks that share a model with this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from handlers.engine.parallel.orders import Load, encode_order
from handlers.engine.process.child import start_child
from handlers.engine.process.placement import Placement, visible_gpus
from handlers.engine.process.source import EngineBuilder, EngineSource

if TYPE_CHECKING:
    from handlers.engine.parallel.ranks import Ranks


def start_ranks(handler: EngineBuilder) -> Ranks | None:
    """Start the ranks that share a handler's model with this process, and meet them; return None if it has the model for itself."""
    num_ranks = handler.config.engine.tensor_parallel
    if num_ranks == 1:
        return None
    # Here and not above, so that whoever composes handlers may import this module without torch.
    import torch

    from handlers.engine.parallel.collective import ProcessGroup
    from handlers.engine.parallel.ranks import Ranks

    num_threads = handler.config.engine.num_threads or max(torch.get_num_threads() // num_ranks, 1)
    torch.set_num_threads(num_threads)
    source, gpus = asdict(EngineSource.of(handler)), visible_gpus()
    store_fd = os.memfd_create("ranks")  # a file that no other user can open, and that ends with its last process
    connections = {}
    for rank in range(1, num_ranks):
        connections[rank], theirs = socket.socketpair()
        with theirs:
            variables = rank_environment(rank, gpus, num_threads)
            start_child("handlers.engine.parallel.rank", theirs.fileno(), store_fd, variables=variables)
        connections[rank].sendall(encode_order(Load(rank, num_ranks, source)))
    return Ranks(connections, partial(ProcessGroup, 0, num_ranks, store_fd))


def rank_environment(rank: int, gpus: Sequence[str], num_threads: int) -> dict[str, str]:
    """Return the variables that give a rank its threads, and one of the GPUs of all, of which rank 0 uses the first."""
    place = Placement(gpus=(gpus[rank],) if gpus else None)
    return place.environment() | {"OMP_NUM_THREADS": str(num_threads)}
