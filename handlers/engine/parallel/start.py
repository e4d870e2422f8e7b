"""Start the ranks that share a model with this process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from handlers.engine.parallel.orders import Load, encode_order
from handlers.engine.process.child import start_child
from handlers.engine.process.placement import Placement, visible_gpus
from handlers.engine.process.source import EngineBuilder, EngineSource

if TYPE_CHECKING:
    from handlers.engine.parallel.ranks import Ranks


@contextmanager
def starting_ranks(handler: EngineBuilder) -> Iterator[Ranks | None]:
    """Start the ranks that share a handler's model with this process, and meet them; gives None if it has the model for itself.

    Each has one of the GPUs that this process may use, the first of which is its own, or its share of the threads.
    """
    num_ranks = handler.config.engine.tensor_parallel
    if num_ranks == 1:
        yield None
        return
    # Here and not above, so that whoever composes handlers may import this module without torch.
    import torch

    from handlers.engine.parallel.collective import ProcessGroup
    from handlers.engine.parallel.ranks import Ranks

    num_threads = max(torch.get_num_threads() // num_ranks, 1)
    torch.set_num_threads(num_threads)
    store_fd = os.memfd_create("ranks")  # a file that no other user can open, and that ends with its last process
    source, gpus = asdict(EngineSource.of(handler)), visible_gpus()
    connections = {}
    for rank in range(1, num_ranks):
        ours, theirs = socket.socketpair()
        place = Placement(gpus=(gpus[rank],) if gpus else None)
        with theirs:
            variables = place.environment() | {"OMP_NUM_THREADS": str(num_threads)}
            start_child("handlers.engine.parallel.rank", theirs.fileno(), store_fd, variables=variables)
        ours.sendall(encode_order(Load(rank, num_ranks, source)))
        connections[rank] = ours
    yield Ranks(connections, ProcessGroup(0, num_ranks, store_fd))
