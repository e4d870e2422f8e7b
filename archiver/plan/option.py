"""One way to run a model: how it is divided, what it takes, how much it holds and how fast it is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from archiver.plan.capacity import Capacity, find_capacity
from archiver.plan.engines import MARQUEE, Engine
from archiver.plan.layout import Layout, indivisible
from archiver.plan.ledger import predict_ledger
from archiver.plan.model.facts import ModelFacts
from archiver.plan.request import PlanRequest
from archiver.plan.sizes import EngineSizes, Replica
from archiver.plan.speed import SpeedModel
from handlers.config import parse_engine_config
from handlers.memory_ledger import Interval, MemoryLedger
from handlers.quant.formats import PLAIN
from handlers.quant.machine import dotted
from handlers.tensor_parallel import FAMILIES

_MOST_RUNNING = {"cuda": 256, "cpu": 64}
"""Sequences at once where the load asks for no number: beyond it latency grows more than throughput."""

_MANAGEABLE = 1024
_GIB = 1 << 30
_MACHINE_GPUS = 8
_BUSY_MINUTE = 1.5
"""How many more sequences are in progress at times than on the average."""
_ROUNDS = 20


@dataclass(frozen=True)
class Option:
    """A way to run what is asked for."""

    request: PlanRequest
    replica: Replica
    ledger: MemoryLedger
    capacity: Capacity

    @property
    def layout(self) -> Layout:
        """How the devices are used."""
        return self.replica.layout

    @property
    def obstacle(self) -> str | None:
        """Why it cannot be, whatever the memory; None if it can."""
        if self.layout.gpus_per_replica > _MACHINE_GPUS:
            return f"a replica on {self.layout.gpus_per_replica} GPUs crosses machines, whose network is not planned for"
        return indivisible(self.request.model, self.layout) or self.engine_lacks

    @property
    def engine_lacks(self) -> str | None:
        """What the engine would have to do that it does not; None if it does all."""
        engine, model, hardware = self.replica.engine, self.request.model, self.request.hardware
        if self.layout.pipeline > 1 and not engine.has_pipeline_parallel:
            return f"the engine {engine.name} has no pipeline stages"
        if self.layout.tensor > 1 and engine.name == MARQUEE.name and (reason := _undivided(model)):
            return f"the engine {engine.name} {reason}"
        if self.replica.sizes.kv_dtype == "fp8" and not engine.has_fp8_kv:
            return f"the engine {engine.name} has no FP8 KV cache"
        if hardware.device == "cuda" and not engine.batches_states and any(layer.kind == "state" for layer in model.cache):
            return f"the engine {engine.name} leaves layers that keep a state to transformers' generate, without a KV budget"
        if engine.name == MARQUEE.name and hardware.capability is not None:
            return _lacks_kernels(model, hardware.capability)
        return None

    @property
    def max_running(self) -> int:
        """Sequences that each replica runs at once."""
        return self.replica.sizes.max_running

    @cached_property
    def speed(self) -> SpeedModel:
        """Times of one replica."""
        return SpeedModel(self.replica, self.request.hardware)

    @property
    def tokens_per_s(self) -> Interval:
        """Tokens that all replicas generate in a second with all places taken, prompts left out."""
        return self.speed.tokens_per_s(self.max_running, self.request.workload.mean_context_tokens) * self.layout.data

    @property
    def full_load_tokens_per_s(self) -> float:
        """Tokens that all replicas generate in a second with as many sequences as memory holds, of a number that engines manage."""
        batch = max(min(self.capacity.sequences.p50, _MANAGEABLE), 1)
        return self.layout.data * self.speed.tokens_per_s(batch, self.request.workload.mean_context_tokens).expected

    @property
    def itl_s(self) -> Interval:
        """Time between two tokens of a sequence with all places taken."""
        return self.speed.decode_step(self.max_running, self.request.workload.mean_context_tokens)

    @property
    def ttft_s(self) -> Interval:
        """Time from a prompt of the 95th percentile to its first token, when nothing waits before it: its chunks ride along with steps."""
        prompt = self.request.workload.prompt_tokens.p95 - self.request.workload.shared_prefix_tokens
        chunk = self.replica.sizes.prefill_chunk_tokens
        return self.speed.prefill(max(prompt, 1)) + self.itl_s * (math.ceil(prompt / chunk) if prompt > 0 else 1)

    @cached_property
    def wanted_sequences(self) -> int:
        """Sequences that each replica is asked to hold at once: its share of those in progress, by number or rate; one if nobody said."""
        workload = self.request.workload
        if workload.concurrency is None and workload.rate is not None:
            return sequences_in_progress(self, workload.rate, _MANAGEABLE)
        return math.ceil((workload.concurrency or 1) / self.layout.data)


def evaluate(request: PlanRequest, engine: Engine, layout: Layout) -> Option:
    """Work out an option; how many sequences run at once follows from the load, the memory and the latency that is asked for."""
    sizes = _first_sizes(request, layout)
    option = _with(request, _with_pool(request, Replica(request.model, engine, layout, sizes)))
    if "max_running" not in request.settings and (request.has_stated_load or request.hardware.device == "cuda"):
        sizes = replace(option.replica.sizes, max_running=_max_running(option))
        option = _with(request, replace(option.replica, sizes=sizes))
    return option


def _with(request: PlanRequest, replica: Replica) -> Option:
    ledger = predict_ledger(replica, request.hardware)
    capacity = find_capacity(replica, request.hardware, ledger, request.workload)
    return Option(request, replica, ledger, capacity)


def _first_sizes(request: PlanRequest, layout: Layout) -> EngineSizes:
    """Return what the user set, the defaults for the rest, and as many sequences as the load has or a device may run."""
    engine, most = parse_engine_config(request.settings), _MOST_RUNNING[request.hardware.device]
    share = most if request.workload.concurrency is None else min(math.ceil(request.workload.concurrency / layout.data), _MANAGEABLE)
    return EngineSizes(
        max_model_len=engine.max_model_len or request.model.max_model_len or request.workload.sequence_tokens.p95,
        max_running=engine.max_running if "max_running" in request.settings else share,
        prefill_chunk_tokens=engine.prefill_chunk_tokens,
        block_tokens=engine.block_tokens,
        memory_fraction=engine.memory_fraction,
        kv_memory_bytes=int(engine.kv_memory_gib * 2**30) if engine.kv_memory_gib else None,
        kv_dtype=request.kv_dtype,
    )


def _with_pool(request: PlanRequest, replica: Replica) -> Replica:
    """Return a replica on a CPU with the memory for keys and values that a stated load takes: at most half of what is left."""
    concurrency = request.workload.concurrency
    if request.hardware.device == "cuda" or concurrency is None or replica.sizes.kv_memory_bytes is not None:
        return replica
    wanted = concurrency * replica.sequence_bytes(request.workload.sequence_tokens.p95)
    left = request.hardware.memory_bytes - request.model.weight_bytes - request.hardware.context.expected
    thousandths = math.ceil(1000 * min(wanted, max(left / 2, 0)) / _GIB)  # of a GiB: what the configuration says
    return replace(replica, sizes=replace(replica.sizes, kv_memory_bytes=max(thousandths, 1) * _GIB // 1000))


def _max_running(option: Option) -> int:
    """Return how many sequences run at once: no more than hold their median length, as the tail is preempted, and keep to the latency."""
    workload = option.request.workload
    limits = [option.max_running, option.capacity.sequences.p50]
    if workload.itl_ms is not None:
        limits.append(option.speed.largest_batch(workload.itl_ms / 1000, workload.mean_context_tokens, option.max_running))
    if workload.concurrency is None and workload.rate is not None:
        limits.append(math.ceil(_BUSY_MINUTE * sequences_in_progress(option, workload.rate, option.max_running)))
    return max(min(limits), 1)


def sequences_in_progress(option: Option, rate: float, most: int) -> int:
    """Return the sequences that each replica has in progress at a rate, by Little's law; ``most`` where it cannot keep up.

    Steps that read prompts are longer, so that only what prompts leave of the time is for answers.
    """
    workload, each = option.request.workload, rate / option.layout.data
    prompt_s = option.speed.prefill(max(workload.prompt_tokens.p50 - workload.shared_prefix_tokens, 1)).expected
    left = 1 - each * prompt_s
    if left <= 0:
        return most
    running = 1
    for _ in range(_ROUNDS):  # more in progress make each slower, until both agree
        step_s = option.speed.decode_step(running, workload.mean_context_tokens).expected / left
        running = min(max(math.ceil(each * (prompt_s + workload.output_tokens.p50 * step_s)), 1), most)
    return running


def _undivided(model: ModelFacts) -> str | None:
    """Say why our engine does not share a model among ranks; None if it does."""
    if model.model_type not in FAMILIES:
        return f"runs models of type {model.model_type} on one device"
    return None if model.format is PLAIN else f"divides plain weights only, not {model.format.name}"


def _lacks_kernels(model: ModelFacts, capability: tuple[int, int]) -> str | None:
    route = model.format.route("cuda")
    if route is None or route.capability <= capability:
        return None
    return f"{model.format.name} needs a GPU of compute capability {dotted(route.capability)} or newer on our engine"
