"""Measure what this machine's CPU reads and multiplies in a second: ``marquee plan --cpu --measure``."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.util import find_spec
from typing import TypeAlias

from archiver.plan.hardware.cpu import this_cpu
from archiver.plan.hardware.profile import Dtype, Efficiency, Hardware, Source
from handlers import host_limits
from handlers.memory_ledger import Interval

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""A stage, steps done, steps in all."""

COMMAND = "marquee plan --cpu --measure"
_REPEATS = 5  # the best counts: whatever else runs on the machine only ever takes time
_BUFFER_BYTES = 1 << 30  # no last-level cache is near it
_LONG_ENOUGH_S = 0.05
_SIZES = (512, 1024, 2048, 4096)
_DTYPES: tuple[Dtype, ...] = ("bfloat16", "float32")
# Of what was measured: our decoder in C reads weights at 21.7 of the 23 to 25 GB/s of a plain read (docs/benchmarks.md); other runners
# are slower. Prompts take attention and norms besides the products.
_DECODE_SHARE = Interval(0.5, 0.8, 0.95)
_PREFILL_SHARE = Interval(0.4, 0.7, 1)


def measure_cpu(on_progress: OnProgress = lambda stage, done, total: None) -> Hardware:
    """Return this CPU with measured bandwidth and, where torch is installed, measured FLOP/s. Takes seconds, and all usable cores."""
    num_threads = host_limits.num_cores()
    dtypes = _DTYPES if find_spec("torch") else ()
    total = 1 + len(dtypes)
    on_progress("memory", 0, total)
    measured = _with_bandwidth(this_cpu(), num_threads)
    flops: dict[Dtype, float] = {}
    for done, dtype in enumerate(dtypes, start=1):
        on_progress(dtype, done, total)
        flops[dtype] = multiply_flops(dtype)
    on_progress("measured", total, total)
    return _with_flops(measured, flops) if flops else measured


def _with_bandwidth(cpu: Hardware, num_threads: int) -> Hardware:
    bandwidth = read_bandwidth(num_threads, min(_BUFFER_BYTES, cpu.memory_bytes // 8))
    source = Source("bandwidth", f"`{COMMAND}`: the best of {_REPEATS} reads by {num_threads} threads", date.today().isoformat())
    efficiency = Efficiency(_DECODE_SHARE, calibrated=True, source=source.title, date=source.date)
    return replace(cpu, bandwidth=bandwidth, decode_efficiency=efficiency, sources=(source, *cpu.sources))


def _with_flops(cpu: Hardware, flops: Mapping[Dtype, float]) -> Hardware:
    source = Source("peaks", f"`{COMMAND}`: the best of {_REPEATS} matrix products by torch", date.today().isoformat())
    efficiency = Efficiency(_PREFILL_SHARE, calibrated=True, source=source.title, date=source.date)
    others = tuple(each for each in cpu.sources if each.gives != source.gives)
    return replace(cpu, flops=flops, prefill_efficiency=efficiency, sources=(*others, source))


def read_bandwidth(num_threads: int, num_bytes: int) -> float:
    """Return the bytes/s at which so many threads read a buffer of ``num_bytes`` from memory."""
    size = num_bytes // num_threads
    parts = [ctypes.create_string_buffer(size) for _ in range(num_threads)]
    memchr = ctypes.CDLL(None).memchr  # vectorized everywhere, and ctypes lets go of the interpreter's lock
    memchr.argtypes, memchr.restype = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t), ctypes.c_void_p
    with ThreadPoolExecutor(num_threads) as threads:
        # Written first: pages that nobody wrote to are all the same page of zeros, which the cache holds.
        list(threads.map(lambda part: ctypes.memset(part, 1, size), parts))
        seconds = _best(lambda: list(threads.map(lambda part: memchr(part, 2, size), parts)))
    return num_threads * size / seconds


def multiply_flops(dtype: Dtype) -> float:
    """Return the FLOP/s of torch's matrix products, of square matrices large enough to take a while."""
    import torch

    for size in _SIZES:
        matrix = torch.randn(size, size).to(getattr(torch, dtype))
        seconds = _best(partial(torch.matmul, matrix, matrix))
        if seconds > _LONG_ENOUGH_S:
            break
    return float(2 * size**3 / seconds)


def _best(work: Callable[[], object]) -> float:
    work()  # the first time pays for threads and buffers
    times = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
