"""Where a step's time goes, by torch's profiler: attention, linears, sampling, and the host wherever the device waits for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._profiler import _ExperimentalConfig
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from handlers.engine.client import EngineClient
from tests.bench.gpu.kernels import Span, split
from tests.bench.gpu.rows import Cell
from tests.bench.gpu.setup import NUM_FIRST_CELLS, Setup
from tests.bench.gpu.streams import SETTLING_STEPS, generating, random_prompts

_STEPS = 16
_MEANWHILE_STEPS = 256  # the engine runs on while the profiler gets ready


@dataclass(frozen=True)
class StepSplit:
    """Shares of some steps with all sequences in it. The profiler slows steps down: their time without it is the offline part's."""

    setup: Setup
    client: EngineClient
    name: str = "split"
    who: str = "engine"

    @property
    def cells(self) -> Sequence[Cell]:
        """The first few."""
        return self.setup.cells[:NUM_FIRST_CELLS]

    def least_s(self, cell: Cell) -> float:
        """See Part."""
        return self.setup.decode_least_s(cell)

    def measure(self, cell: Cell) -> Mapping[str, float]:
        """Return the step's time under the profiler, and shares of it; the host's is that in which no kernel runs."""
        num_tokens = min(self.setup.ramp_steps(cell) + SETTLING_STEPS + _MEANWHILE_STEPS, self.client.max_model_len - cell.context)
        self.setup.check_room(self.client, cell, num_tokens)
        prompts = random_prompts(cell.streams, cell.context, self.setup.shape.vocabulary)
        with profiler(self.setup.device):
            pass  # the first one loads libraries
        with generating(self.client, prompts, num_tokens) as streams:
            streams.advance(SETTLING_STEPS + 1)
            with profiler(self.setup.device) as trace:
                begin, begin_s = streams.num_steps, streams.last_s
                streams.advance(begin + _STEPS)
                steps, seconds = streams.num_steps - begin, streams.last_s - begin_s
        parts = split(spans_of(trace, self.setup.device))
        shares = {f"{kind}_share": share for kind, share in parts.shares.items()}
        return {"step_ms": 1e3 * seconds / steps, "busy_share": parts.busy_share, "host_share": 1 - parts.busy_share, **shares}


def profiler(device: torch.device) -> profile:
    """Return a profiler of the device's kernels, whoever asked for them; on a CPU, of the operators in all threads."""
    if device.type == "cuda":
        return profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    return profile(activities=[ProfilerActivity.CPU], experimental_config=_ExperimentalConfig(profile_all_threads=True))


def spans_of(trace: Any, device: torch.device) -> list[Span]:
    """Return the kernels of a trace, or the operators on a CPU."""
    if device.type == "cuda":
        kernels = [event for event in trace.events() if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
        return [Span(each.name, each.time_range.start, each.time_range.end, each.time_range.elapsed_us()) for each in kernels]
    return [Span(each.name, each.time_range.start, each.time_range.end, each.self_cpu_time_total) for each in trace.events()]
