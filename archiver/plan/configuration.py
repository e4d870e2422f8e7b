"""A plan as TorchServe's and the handler's configuration: what is not said here keeps its default."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from archiver.plan.engines import MARQUEE
from archiver.plan.option import Option
from archiver.plan.static_batching import StaticBatching
from handlers import host_limits
from handlers.config import EngineConfig, parse_engine_config

_WAITING_PER_RUNNING = 3
_FEWEST_WAITING = 64
_GIB = 1 << 30

_SLOWEST_LOAD_BYTES_S = 200e6
"""A network disk that has not seen the weights yet."""
_STARTUP_S = 600
"""What handlers ask for; of it two minutes for imports, compilation, verification and warm-up."""
_BEFORE_LOAD_S = 120
_RESPONSE_S = 300
"""What handlers ask for. It is for single calls of the handler, which a continuous one returns from in milliseconds."""

_PARALLEL_TYPES = {(True, False): "tp", (False, True): "pp", (True, True): "pptp"}

_TOKEN_BYTES = 8
"""Of a request's body for each token of its prompt: text in any script, escaped as JSON, and the other fields."""
_SMALLEST_BODY = 6_553_500
_BODIES_IN_FLIGHT = 4
_JVM_BYTES = 384 << 20
_JVM_REQUEST_BYTES = 32 << 10
"""What the frontend keeps of a waiting request beside its body: a job, a channel and their buffers."""
_LARGEST_HEAP = 8 << 30
_SMALLEST_QUEUE = 1000
_GPU_SERVER_NETTY_THREADS = 4
"""Enough for tens of thousands of messages a second; on a CPU the model needs the cores more."""


def engine_settings(option: Option) -> dict[str, Any]:
    """Return the entries of ``handler.engine`` that the plan decides: for a load that was stated, and for GPUs.

    On a CPU of which nothing is known the engine's defaults adapt to what is free when it starts.
    """
    request, sizes = option.request, option.replica.sizes
    decided: dict[str, Any] = {}
    if request.has_stated_load or request.hardware.device == "cuda":
        decided = {"max_running": sizes.max_running, "max_waiting": max(_WAITING_PER_RUNNING * sizes.max_running, _FEWEST_WAITING)}
    if sizes.kv_memory_bytes is not None:
        decided["kv_memory_gib"] = round(sizes.kv_memory_bytes / _GIB, 3)
    if option.layout.data > 1:
        decided["replicas"] = option.layout.data
    if option.layout.tensor > 1:
        decided["tensor_parallel"] = option.layout.tensor
    return {key: value for key, value in decided.items() if value != getattr(EngineConfig(), key)} | dict(request.settings)


def frontend_keys(option: Option, batching: StaticBatching | None) -> dict[str, Any]:
    """Return TorchServe's keys that the plan decides; those that follow from the handler's class are not among them.

    ``batching``: of a handler that leaves batches to TorchServe.
    """
    keys: dict[str, Any] = {"startupTimeout": _startup_s(option), "responseTimeout": _RESPONSE_S}
    if batching is not None:
        keys |= {"batchSize": batching.batch_size, "maxBatchDelay": max(batching.max_batch_delay_ms, 1)}
        keys["responseTimeout"] = max(_RESPONSE_S, math.ceil(3 * batching.latency_s))
    if option.request.hardware.device == "cuda":
        keys |= {"deviceType": "gpu", "deviceIds": list(range(option.request.count))}
    return keys | _torchrun(option)


def model_config(option: Option, batching: StaticBatching | None) -> dict[str, Any]:
    """Return the whole of ``model-config.yaml``: for our ready handlers, or for a handler of another engine what is not the engine's."""
    if option.replica.engine.name != MARQUEE.name:
        workers = {"minWorkers": option.layout.data, "maxWorkers": option.layout.data}
        return dict(sorted({**frontend_keys(option, batching), **workers}.items()))
    settings = engine_settings(option)
    engine = parse_engine_config(settings)
    keys = frontend_keys(option, batching)
    if batching is None:
        keys |= {"continuousBatching": True, "batchSize": engine.frontend_places, "maxBatchDelay": 1}
    keys |= {"minWorkers": 1, "maxWorkers": 1}
    return dict(sorted(keys.items())) | ({"handler": {"engine": settings}} if settings else {})


def server_properties(option: Option) -> dict[str, str]:
    """Return settings for ``config.properties``: the frontend's queue, its largest body, its threads and its heap."""
    engine = parse_engine_config(engine_settings(option))
    places = engine.frontend_places
    body = max(_SMALLEST_BODY, option.replica.sizes.max_model_len * _TOKEN_BYTES)
    queue = max(_SMALLEST_QUEUE, 2 * places)
    threads = str(_GPU_SERVER_NETTY_THREADS if option.request.hardware.device == "cuda" else max(host_limits.num_cores() // 2, 1))
    typical = option.request.workload.prompt_tokens.p95 * _TOKEN_BYTES
    heap = min(_JVM_BYTES + (queue + places) * (typical + _JVM_REQUEST_BYTES) + _BODIES_IN_FLIGHT * body, _LARGEST_HEAP)
    return {
        "job_queue_size": str(queue),
        "max_request_size": str(body),
        "number_of_netty_threads": threads,
        "netty_client_threads": threads,
        "vmargs": f"-Xmx{-(-heap // (1 << 20))}m -XX:+ExitOnOutOfMemoryError -XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }


def render_properties(properties: Mapping[str, str]) -> str:
    """Return the lines of a ``config.properties``."""
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def _startup_s(option: Option) -> int:
    seconds = _BEFORE_LOAD_S + option.request.model.weight_bytes * option.layout.data / _SLOWEST_LOAD_BYTES_S
    return max(_STARTUP_S, math.ceil(seconds / 60) * 60)


def _torchrun(option: Option) -> dict[str, Any]:
    """How TorchServe starts one process a GPU (``parallelType`` with torchrun), for handlers that divide a model so; ours has its own."""
    layout = option.layout
    if layout.gpus_per_replica == 1 or option.replica.engine.name == MARQUEE.name:
        return {}
    parallel = _PARALLEL_TYPES[layout.tensor > 1, layout.pipeline > 1]
    return {"parallelType": parallel, "torchrun": {"nproc-per-node": layout.gpus_per_replica}}
