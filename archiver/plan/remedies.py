"""What would make a plan fit that does not, the cheapest first: settings, then quality, then money. Each was tried, by planning again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from archiver.plan.capacity import longest_sequence
from archiver.plan.choice import choose
from archiver.plan.engines import VLLM
from archiver.plan.hardware.catalogue import load_catalogue
from archiver.plan.hardware.profile import has_fp8
from archiver.plan.model.storage import requantize, with_dtype
from archiver.plan.option import Option
from archiver.plan.request import PlanRequest
from archiver.plan.verdict import gib, judge
from archiver.plan.workload import Quantiles
from handlers.quant.formats import AWQ, CT_FP8, PLAIN, Format

_NUM_REMEDIES = 3
_MOST_DEVICES = 64


@dataclass(frozen=True)
class Remedy:
    """A change after which it fits, said to a person, and the request with it."""

    change: str
    request: PlanRequest


def find_remedies(option: Option) -> tuple[Remedy, ...]:
    """Return the three cheapest ways to make fit what does not."""
    return tuple(islice((remedy for remedy in _candidates(option) if _fits(remedy.request)), _NUM_REMEDIES))


def _candidates(option: Option) -> Iterator[Remedy]:
    yield from _smaller_loads(option)
    yield from _smaller_numbers(option.request)
    yield from _more_devices(option.request)
    yield from _larger_devices(option.request)


def _fits(request: PlanRequest) -> bool:
    return judge(choose(request).option).fits != "no"


def _smaller_loads(option: Option) -> Iterator[Remedy]:
    request, workload, lengths = option.request, option.request.workload, option.request.workload.sequence_tokens
    if workload.concurrency is None or option.obstacle:
        return
    together = option.capacity.sequences.p95 * option.layout.data
    if together:
        yield Remedy(
            f"run {together:,} sequences at once instead of {workload.concurrency:,}; the others wait",
            replace(request, workload=replace(workload, concurrency=together)),
        )
    shorter = longest_sequence(option.replica, option.capacity.kv_bytes.expected / option.wanted_sequences, lengths.p95)
    if shorter >= 2:
        prompt = Quantiles(min(workload.prompt_tokens.p50, shorter // 2), shorter // 2)
        output = Quantiles(min(workload.output_tokens.p50, shorter - shorter // 2), shorter - shorter // 2)
        yield Remedy(
            f"limit sequences to {shorter:,} tokens instead of {lengths.p95:,} (handler.engine.max_model_len)",
            replace(request, workload=replace(workload, prompt_tokens=prompt, output_tokens=output)),
        )


def _smaller_numbers(request: PlanRequest) -> Iterator[Remedy]:
    """FP8 keys and values, fewer bits a weight, and both: for GPUs that have the instructions, as the guide has it."""
    device, model = request.hardware, request.model
    if device.device == "cpu" and "bfloat16" not in device.flops:
        return  # our engine unpacks them there
    if device.device == "cpu":
        yield from _quantized(request, AWQ, "weights of 4 bits (GGUF Q4_K_M, or awq-int4)")
        return
    small_kv = replace(request, kv_dtype="fp8", engine=VLLM)
    if has_fp8(device) and model.dtype_bytes > 1:
        yield Remedy("an FP8 KV cache, on vLLM's engine (--kv-dtype fp8)", small_kv)
    rows = [(CT_FP8, "FP8 weights (fp8-dynamic)")] * has_fp8(device) + [(AWQ, "AWQ weights of 4 bits (awq-int4)")]
    for remedy in (each for row, label in rows for each in _quantized(request, row, label)):
        yield remedy
        if has_fp8(device) and not _fits(remedy.request):
            yield Remedy(f"{remedy.change}, and an FP8 KV cache", replace(small_kv, model=remedy.request.model))


def _quantized(request: PlanRequest, row: Format, label: str) -> Iterator[Remedy]:
    if request.model.format is PLAIN:
        smaller = requantize(request.model, row)
        yield Remedy(f"{label}: {gib(smaller.weight_bytes)} instead of {gib(request.model.weight_bytes)}", replace(request, model=smaller))


def _more_devices(request: PlanRequest) -> Iterator[Remedy]:
    if request.hardware.device == "cpu":
        return
    count = request.count * 2
    while count <= _MOST_DEVICES:
        more = replace(request, count=count, layout=None)
        if _fits(more):
            yield Remedy(f"{count} × {request.hardware.name} instead of {request.count}: {choose(more).option.layout}", more)
            return
        count *= 2


def _larger_devices(request: PlanRequest) -> Iterator[Remedy]:
    larger = [device for device in load_catalogue() if device.memory_bytes > request.hardware.memory_bytes]
    for device in sorted(larger, key=lambda device: device.memory_bytes):
        # What a CPU computes in float32, GPUs compute in half precision.
        model = with_dtype(request.model, "bfloat16") if request.hardware.device == "cpu" else request.model
        yield Remedy(f"{request.count} × {device.name} instead of {request.hardware.name}", replace(request, hardware=device, model=model))
