"""How fast models are on this machine, in the engine that serves them."""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archiver.quantize.producer import OnProgress
from archiver.quantize.quality.generation import generate, running_engine
from handlers.quant.machine import Machine
from handlers.requests import SamplingParams

if TYPE_CHECKING:
    from handlers.engine.client import EngineClient

STREAMS = (1, 8)
WORKLOAD = "prompts of 32 tokens, 64 generated for each, greedy, in this machine's own engine; median of 3 runs of half a second or more"
_REPEATS = 3
_RUN_S = 0.5
_PROMPT_TOKENS = 32
_NEW_TOKENS = 64

DeviceKind = Literal["CPU", "GPU", "GPU with FP8"]


@dataclass(frozen=True)
class Speed:
    """Generated tokens a second of all streams together, over repeated runs."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, runs: Sequence[float]) -> Speed:
        """Summarize runs."""
        return cls(statistics.median(runs), min(runs), max(runs))


Load = Callable[[], Any]
"""Return a model for the engine."""

Speeds = Mapping[int, Speed]
"""By number of streams."""


def measure_speeds(loaders: Mapping[str, Load], on_progress: OnProgress) -> dict[str, Speeds]:
    """Measure the models that ``loaders`` load, given and returned by name.

    Each repeat takes all models in turn, so that what else the machine does meets them alike, and loads each anew, so that only one is in
    memory.
    """
    runs: dict[str, list[dict[int, float]]] = {name: [] for name in loaders}
    turns = list(loaders) * _REPEATS
    for index, name in enumerate(turns):
        on_progress("speed", index, len(turns))
        runs[name].append(_run(loaders[name]))
    on_progress("speed", len(turns), len(turns))
    return {name: {streams: Speed.of([run[streams] for run in each]) for streams in STREAMS} for name, each in runs.items()}


def _run(load: Load) -> dict[int, float]:
    gc.collect()  # the model before: modules and their hooks refer to each other
    with running_engine(load()) as engine:
        _generate(engine, max(STREAMS))  # the first run pays for what is made once
        return {streams: _tokens_per_s(engine, streams) for streams in STREAMS}


def _tokens_per_s(engine: EngineClient, streams: int) -> float:
    num_tokens, elapsed_s, started = 0, 0.0, time.perf_counter()
    while elapsed_s < _RUN_S:
        num_tokens += _generate(engine, streams)
        elapsed_s = time.perf_counter() - started
    return num_tokens / elapsed_s


def _generate(engine: EngineClient, streams: int) -> int:
    """Let as many streams write at once, and return how many tokens they are. Every vocabulary has the token ids of the prompts."""
    params = SamplingParams(max_tokens=_NEW_TOKENS, temperature=0.0, ignore_eos=True)
    prompts = [list(range(stream, stream + _PROMPT_TOKENS)) for stream in range(streams)]
    return sum(map(len, generate(engine, prompts, [params] * streams)))


def device_kind(machine: Machine) -> DeviceKind:
    """Return what decides which formats are fast: GPUs from compute capability 8.9 on multiply FP8."""
    if not machine.gpus:
        return "CPU"
    return "GPU with FP8" if machine.capability >= (8, 9) else "GPU"


def describe_machine(machine: Machine) -> str:
    """Return what speeds are measured on, in words."""
    if machine.gpus:
        return str(machine)
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text()):
            return f"{found[1]}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
