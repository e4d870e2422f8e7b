"""What the ranks of a model exchange while they compute, through torch.distributed: NCCL between GPUs, gloo between processes on a CPU."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Protocol

import torch
from torch import Tensor, distributed

_TIMEOUT = timedelta(minutes=30)
"""How long a rank may let the others wait, most of all while it reads its weights; hung steps are the supervisor's to notice."""


class Collective(Protocol):
    """Ranks that call the same methods in the same order, with tensors of the same shape. Used by one thread of each."""

    rank: int
    num_ranks: int
    num_exchanges: int
    """Calls so far: the same number on all ranks that are in step."""

    def add_up(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by the sum over all ranks: the same bits on each of them."""
        ...

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks in their order."""
        ...


class ProcessGroup:
    """The Collective of processes on one machine. They meet in the file behind ``store_fd``, which all have inherited.

    The constructor waits for all of them. A process can be in one group in its life.
    """

    def __init__(self, rank: int, num_ranks: int, store_fd: int) -> None:
        self.rank, self.num_ranks = rank, num_ranks
        self.num_exchanges = 0
        for library in ("GLOO", "NCCL"):  # nothing listens where other machines could reach it
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        store = f"file:///proc/self/fd/{store_fd}"
        distributed.init_process_group(backend, init_method=store, rank=rank, world_size=num_ranks, timeout=_TIMEOUT)

    def add_up(self, tensor: Tensor) -> None:
        """Replace ``tensor`` by the sum; see Collective."""
        self.num_exchanges += 1
        distributed.all_reduce(tensor)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks; see Collective."""
        self.num_exchanges += 1
        tensors = [torch.empty_like(tensor) for _ in range(self.num_ranks)]
        distributed.all_gather(tensors, tensor)
        return tensors
