"""Graphs take their memory before keys and values take the rest, and within the share."""

from __future__ import annotations

import pytest
from memory_fakes import GIB, LAYERS, MIB, DeviceRunner, FakeDevice

from handlers.config import EngineConfig
from handlers.engine.memory.budget import TokenBytes
from handlers.engine.memory.out_of_memory import is_out_of_memory
from handlers.engine.memory.settle import Settled, settle_memory

CONFIG = EngineConfig(max_running=64)


class GraphedRunner(DeviceRunner):
    """A DeviceRunner that records graphs over the blocks that it gets, and forgets those over the blocks before."""

    graph_bytes = 0
    held_bytes = 0
    num_recordings = -1  # it is made without any

    def resize(self, num_blocks: int, max_model_len: int) -> None:
        self.device.give(self.held_bytes)
        self.held_bytes = 0
        super().resize(num_blocks, max_model_len)
        self.num_recordings += 1
        if self.num_recordings:
            self.device.take(self.graph_bytes)
            self.held_bytes = self.graph_bytes


def settle(graph_bytes: int) -> tuple[GraphedRunner, Settled]:
    runner = GraphedRunner(FakeDevice(10 * GIB))
    runner.graph_bytes = graph_bytes
    token = TokenBytes(runner.token_bytes, runner.token_bytes // LAYERS)
    return runner, settle_memory(runner, runner.device, CONFIG, token, None)


@pytest.mark.parametrize("graph_bytes", [0, 600 * MIB])
def test_what_graphs_take_is_measured_and_left_out_of_the_cache(graph_bytes: int) -> None:
    runner, settled = settle(graph_bytes)
    plain, _ = settle(0)
    assert settled.footprint.graphs == graph_bytes == runner.held_bytes
    assert runner.num_recordings == 2  # over a few blocks, and over all
    lost = plain.kv_bytes - runner.kv_bytes
    assert lost == pytest.approx(graph_bytes * LAYERS / (LAYERS + 1), abs=4 * MIB)
    assert runner.device.peak <= CONFIG.memory_fraction * runner.device.total_bytes


def test_a_kernel_that_finds_no_memory_to_be_loaded_is_out_of_memory() -> None:
    assert is_out_of_memory(RuntimeError("Triton Error [CUDA]: out of memory"))
    assert not is_out_of_memory(RuntimeError("out of resource: shared memory, Required: 270336, Hardware limit: 232448"))
