"""Ranks as threads of this process."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
from torch import Tensor

from handlers.engine.parallel.collective import Collective

Result = TypeVar("Result")


class ThreadCollective:
    """A Collective whose ranks are threads that leave their tensors in one list."""

    def __init__(self, rank: int, tensors: list[Tensor | None], barrier: threading.Barrier) -> None:
        self.rank, self.num_ranks = rank, len(tensors)
        self.num_exchanges = 0
        self._tensors, self._barrier = tensors, barrier

    def add_up(self, tensor: Tensor) -> None:
        tensor.copy_(sum(self.gather(tensor)))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        self.num_exchanges += 1
        self._tensors[self.rank] = tensor.clone()
        self._barrier.wait(60)
        tensors = list(self._tensors)
        self._barrier.wait(60)
        return tensors


@pytest.fixture
def in_ranks() -> Callable[..., list]:
    """Return a function that calls another one in a thread for each rank, with its Collective, and returns what they return."""

    def run(num_ranks: int, function: Callable[[Collective], Result]) -> Sequence[Result]:
        barrier, tensors = threading.Barrier(num_ranks), [None] * num_ranks

        def rank(index: int) -> Result:
            try:
                return function(ThreadCollective(index, tensors, barrier))
            except BaseException:
                barrier.abort()
                raise

        with ThreadPoolExecutor(num_ranks) as threads:
            return list(threads.map(rank, range(num_ranks)))

    return run
