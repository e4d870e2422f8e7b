"""This machine's CPU as hardware to plan for: peaks by what it says of itself, with intervals as wide as that is vague."""

from __future__ import annotations

from collections.abc import Mapping

from archiver.plan.hardware.processor import Processor, read_processor
from archiver.plan.hardware.profile import NO_LINK, Dtype, Efficiency, Hardware, Source
from handlers import host_limits
from handlers.memory_ledger import Interval

_WRITTEN = "2026-11-28"
# One core reads up to about 20 GB/s, and a socket of twelve DDR5-4800 channels 460 GB/s.
_CORE_BANDWIDTH = 20e9
_SOCKET_BANDWIDTH = 460e9
# Of Python with torch loaded, and an engine process beside the worker.
_CONTEXT = Interval(0.3e9, 0.7e9, 1.5e9)

# FLOP per cycle and core, of the best that a feature stands for: both of two 512-bit units; a 16 by 16 tile multiplication in 16 cycles
# (Intel Architectures Optimization Reference Manual). Processors with one unit reach half; the efficiency's interval covers it.
_PER_CYCLE: Mapping[Dtype, tuple[tuple[str, int], ...]] = {
    "bfloat16": (("amx_bf16", 1024), ("avx512_bf16", 128), ("bf16", 64)),
    "float16": (("amx_fp16", 1024), ("avx512_fp16", 128), ("asimdhp", 32)),
    "int8": (("amx_int8", 2048), ("avx512_vnni", 256), ("avx_vnni", 128), ("asimddp", 64)),
    "float32": (("avx512f", 64), ("fma", 32), ("asimd", 16), ("", 8)),
}


def this_cpu() -> Hardware:
    """Return the CPU, all usable cores together. The same whenever it is asked: only totals count, nothing is measured."""
    return describe_cpu(read_processor(), host_limits.num_cores(), host_limits.memory_bytes())


def describe_cpu(processor: Processor, num_cores: int, memory_bytes: int) -> Hardware:
    """Return the profile of so many logical cores of a processor."""
    cores = max(num_cores // processor.threads_per_core, 1)
    return Hardware(
        id="cpu",
        name=f"{processor.name}, {num_cores} core{'s' if num_cores > 1 else ''}",
        device="cpu",
        memory_bytes=memory_bytes,
        bandwidth=min(cores * _CORE_BANDWIDTH, _SOCKET_BANDWIDTH),
        flops={dtype: peak * processor.hz * cores for dtype, peak in _peaks(processor).items()},
        links=(NO_LINK,),
        context=_CONTEXT,
        decode_efficiency=_guess(Interval(0.1, 0.5, 1)),
        prefill_efficiency=_guess(Interval(0.1, 0.35, 0.8)),
        sources=(Source("peaks", "features of the processor, and what is usual for such; memory channels cannot be seen", _WRITTEN),),
    )


def _peaks(processor: Processor) -> dict[Dtype, int]:
    """FLOP per cycle and core, of what the processor multiplies; other types it must turn into float32 first."""
    found: dict[Dtype, int] = {}
    for dtype, features in _PER_CYCLE.items():
        peak = next((peak for feature, peak in features if not feature or feature in processor.features), None)
        if peak is not None:
            found[dtype] = peak
    return found


def _guess(share: Interval) -> Efficiency:
    return Efficiency(share, calibrated=False, source="a guess: `marquee plan --cpu --measure` measures", date=_WRITTEN)
