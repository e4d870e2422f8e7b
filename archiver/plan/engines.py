"""What the engines that a plan chooses among keep of a sequence, and can do: ours, and those that the guide names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from archiver.plan.hardware.profile import Hardware
from archiver.plan.model.facts import CacheLayer, ModelFacts
from handlers.memory_ledger import Interval

KvDtype = Literal["auto", "fp8"]


@dataclass(frozen=True)
class Engine:
    """``keeps_windows``: of a sliding layer it keeps the window only; ``keeps_latents``: of latent attention what it is computed from.
    ``batches_states``: it runs layers that keep a state with continuous batching.

    ``copies_embedding``: each rank of tensor parallelism holds all of it. ``has_pipeline_parallel``: it runs a replica in stages.
    ``gathers_context``: it copies a layer's keys and values together before it attends to them, and so reads and writes them once more.
    ``num_graphs``: CUDA graphs that it captures at the start. ``step_overhead_s`` and ``layer_overhead_s``: what a step, and each layer in
    it, costs beside the device's work: scheduling, sampling, and the start of operations one by one where no graph replays them.
    """

    name: str
    keeps_windows: bool
    keeps_latents: bool
    batches_states: bool
    has_fp8_kv: bool
    has_pipeline_parallel: bool
    copies_embedding: bool
    gathers_context: bool
    num_graphs: int
    step_overhead_s: Interval
    layer_overhead_s: Interval

    def layer_bytes(self, layer: CacheLayer, num_tokens: int, kv_bytes: float, tensor_parallel: int = 1) -> float:
        """Return what a layer keeps of a sequence on one rank."""
        if layer.kind == "sliding" and not self.keeps_windows:
            return num_tokens * layer.heads(tensor_parallel) * layer.head_elements * kv_bytes
        if layer.kind == "latent" and not self.keeps_latents:
            return num_tokens * layer.expanded_elements * kv_bytes / tensor_parallel
        return layer.bytes(num_tokens, kv_bytes, tensor_parallel)

    def sequence_bytes(self, model: ModelFacts, num_tokens: int, kv_bytes: float, tensor_parallel: int = 1) -> float:
        """Return what all layers keep of a sequence on one rank."""
        return sum(self.layer_bytes(layer, num_tokens, kv_bytes, tensor_parallel) for layer in model.cache)


MARQUEE = Engine(
    "marquee",
    keeps_windows=False,
    keeps_latents=False,
    batches_states=False,
    has_fp8_kv=False,
    has_pipeline_parallel=False,
    copies_embedding=True,
    gathers_context=True,
    num_graphs=0,
    step_overhead_s=Interval(0.0005, 0.001, 0.003),
    layer_overhead_s=Interval(0.00005, 0.0001, 0.0003),  # a dozen kernels at 5 to 20 µs: an estimate
)
MARQUEE_ON_CPU = replace(MARQUEE, layer_overhead_s=Interval(0.0002, 0.0005, 0.0015))
"""The lean decoder in torch: about 0.4 ms a layer of a small model on two cores (docs/benchmarks.md)."""
MARQUEE_NATIVE = replace(MARQUEE, gathers_context=False, layer_overhead_s=Interval(0, 0.00002, 0.0001))
"""The decoder in C: a step is one call, which attends to blocks where they lie."""
VLLM = Engine(
    "vllm",
    keeps_windows=True,
    keeps_latents=True,
    batches_states=True,
    has_fp8_kv=True,
    has_pipeline_parallel=True,
    copies_embedding=False,
    gathers_context=False,
    num_graphs=35,
    step_overhead_s=Interval(0.0002, 0.0005, 0.002),
    layer_overhead_s=Interval.exact(0),
)


def own_engine(hardware: Hardware) -> Engine:
    """Return ours, as it runs there: the decoder in C needs a CPU that multiplies bfloat16."""
    if hardware.device == "cuda":
        return MARQUEE
    return MARQUEE_NATIVE if "bfloat16" in hardware.flops else MARQUEE_ON_CPU


def kv_element_bytes(model: ModelFacts, kv_dtype: KvDtype) -> float:
    """Return the bytes of one number in the KV cache."""
    return 1 if kv_dtype == "fp8" else model.dtype_bytes
