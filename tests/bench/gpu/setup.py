"""What all parts of a run share: the device, the model's shape with its roofline, the cells, and the engine."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from handlers.config import EngineConfig
from handlers.engine.build import build_engine_client
from handlers.engine.client import EngineClient
from handlers.engine.memory.device import memory_of
from handlers.engine.surroundings import Surroundings
from tests.bench.gpu.roofline import Roofline
from tests.bench.gpu.rows import Cell
from tests.bench.gpu.shapes import random_model
from tests.bench.gpu.streams import SETTLING_STEPS, generating, random_prompts
from tests.bench.models import Shape

NUM_FIRST_CELLS = 3
"""Cells that goals are set for, or would be with other numbers."""


_WARM_UP_TOKENS = 64
_SLACK_STEPS = 32
"""Sequences are added one after the other while the first generate already."""


class DoesNotFit(Exception):
    """The KV cache does not hold the cell's sequences."""


@dataclass(frozen=True)
class Setup:
    """``cells`` are in the order of their importance. ``steps``: decode steps that are timed in a cell.

    ``answer_tokens`` and ``rounds``: what each client of the served part asks for, and how often.
    """

    device: torch.device
    roofline: Roofline
    cells: Sequence[Cell]
    steps: int
    chunk_tokens: int
    answer_tokens: int
    rounds: int

    @property
    def shape(self) -> Shape:
        """The model's."""
        return self.roofline.shape

    @property
    def most_streams(self) -> int:
        """The sequences of the fullest cell."""
        return max(cell.streams for cell in self.cells)

    @property
    def engine_config(self) -> EngineConfig:
        """As an operator would set it for these loads; prompts are fresh, and a prefix cache would only cost.

        On a CPU the C kernels are left out: what is rehearsed there is the path of torch's operators.
        """
        return EngineConfig(
            max_running=self.most_streams,
            max_waiting=self.most_streams,
            prefill_chunk_tokens=self.chunk_tokens,
            memory_fraction=0.9,
            prefix_caching=False,
            native_kernels=self.device.type != "cpu",
        )

    def ramp_steps(self, cell: Cell) -> int:
        """Return in how many steps, generously, all prompts are read."""
        chunk_tokens = max(self.chunk_tokens - cell.streams, self.chunk_tokens // 2)  # tokens of running sequences count, too
        return _SLACK_STEPS + math.ceil(1.25 * cell.streams * cell.context / chunk_tokens)

    def decode_tokens(self, cell: Cell) -> int:
        """Return how many tokens each sequence of a cell must generate so that ``steps`` have all of them in it."""
        return self.ramp_steps(cell) + SETTLING_STEPS + self.steps

    def decode_least_s(self, cell: Cell) -> float:
        """Return the least time in which a cell's prompts are read and those tokens generated."""
        prefill_s = self.roofline.prefill_s(cell.streams, cell.context)
        return prefill_s + self.decode_tokens(cell) * self.roofline.decode_s(cell.streams, cell.context)

    def check_room(self, client: EngineClient, cell: Cell, num_tokens: int) -> None:
        """Raise DoesNotFit unless all sequences of a cell can generate ``num_tokens`` at once."""
        length = cell.context + num_tokens
        if length > client.max_model_len:
            raise DoesNotFit(f"sequences of {length} tokens, {client.max_model_len} at most")
        block_tokens = self.engine_config.block_tokens
        needed, there = cell.streams * math.ceil(length / block_tokens), client.stats().blocks_total
        if needed > there:
            raise DoesNotFit(f"{needed * block_tokens} tokens of KV cache needed, {there * block_tokens} there")


@contextmanager
def open_engine(setup: Setup) -> Iterator[EngineClient]:
    """Make a model and an engine over it that has generated a little: clocks and caches are warm. Nothing of it is left afterwards."""
    memory = memory_of(setup.device)  # from before the model
    model = random_model(setup.shape, setup.device)
    client = build_engine_client(model, setup.engine_config, eos_token_ids=frozenset(), around=Surroundings(memory=memory))
    try:
        _warm_up(setup, client)
        yield client
    finally:
        client.close()


def _warm_up(setup: Setup, client: EngineClient) -> None:
    prompts = random_prompts(min(8, setup.most_streams), _WARM_UP_TOKENS, setup.shape.vocabulary)
    with generating(client, prompts, _WARM_UP_TOKENS) as streams:
        streams.until_end(1)


def free_device() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
