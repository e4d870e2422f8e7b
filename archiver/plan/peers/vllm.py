"""vLLM: ``--gpu-memory-utilization`` is a share of the GPU's total memory, and ``--kv-cache-memory-bytes`` the KV cache itself.

From the share of the total, vLLM takes weights, what a trial run of the largest step took, and (since 0.21) an estimate for CUDA graphs;
the rest is KV cache. What the process had taken before it looked first, the CUDA context and NCCL's buffers, does not count
(vllm/v1/worker/gpu_worker.py, ``init_device`` and ``determine_available_memory``). ``kv_cache_memory_bytes`` is per GPU and overrules the
share (vllm/config/cache.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TypeAlias

from archiver.plan.peers.deployment import Deployment
from archiver.plan.peers.rendering import Rendering, beyond_one, flags, round_down
from handlers.quant.formats import GGUF

EngineArguments: TypeAlias = dict[str, str | int | float | bool | dict[str, str | int]]
"""By the names of vLLM's ``EngineArgs``; its command line writes them with dashes."""

MEANING = "of the GPU's total memory: weights, activations, CUDA graphs and KV cache, without the CUDA context"
_BYTES_INSTEAD = "none: the bytes of the KV cache are given"


def render(deployment: Deployment) -> Rendering:
    """Return the command of vLLM's OpenAI server."""
    arguments = engine_arguments(deployment)
    model = str(arguments.pop("model"))
    options = flags({"--host": deployment.host, "--port": deployment.port, "--served-model-name": deployment.served_name})
    words = ("vllm", "serve", model, *options, *(word for name, value in arguments.items() for word in _option(name, value)))
    fraction = memory_fraction(deployment)
    meaning = _BYTES_INSTEAD if fraction is None else MEANING
    return Rendering(words, meaning, fraction, engine_environment(deployment), notes=engine_notes(deployment))


def engine_arguments(deployment: Deployment) -> EngineArguments:
    """Return the engine's arguments, but for those that say what vLLM does anyway."""
    arguments: EngineArguments = {
        "model": deployment.model,
        "dtype": deployment.dtype,
        "max_model_len": deployment.max_model_len,
        "max_num_seqs": deployment.max_running,
        # Its limit of a step counts the sequences that decode too.
        "max_num_batched_tokens": deployment.prefill_chunk_tokens + deployment.max_running,
        "enable_prefix_caching": deployment.prefix_caching,
        "kv_cache_memory_bytes": deployment.kv_bytes,
    }
    for kind in ("tensor", "pipeline", "data"):
        if size := beyond_one(getattr(deployment, f"{kind}_parallel")):
            arguments[f"{kind}_parallel_size"] = size
    if (fraction := memory_fraction(deployment)) is not None:
        arguments["gpu_memory_utilization"] = fraction
    if deployment.kv_dtype == "fp8":
        arguments["kv_cache_dtype"] = "fp8"
    if deployment.speculative_tokens:
        arguments["speculative_config"] = {"method": "ngram", "num_speculative_tokens": deployment.speculative_tokens}
    return arguments


def memory_fraction(deployment: Deployment) -> float | None:
    """Return the share of total memory that leaves as many bytes for the KV cache; None on a CPU, where the bytes are given."""
    if deployment.device == "cpu":
        return None
    return round_down((deployment.working_bytes + deployment.kv_bytes) / deployment.device_bytes)


def engine_environment(deployment: Deployment) -> dict[str, str]:
    """Return the variables that the engine reads."""
    if deployment.device == "cuda" or deployment.num_threads is None:
        return {}
    return {"OMP_NUM_THREADS": str(deployment.num_threads), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def engine_notes(deployment: Deployment) -> tuple[str, ...]:
    """Return what the engine does otherwise."""
    return tuple(_notes(deployment))


def _notes(deployment: Deployment) -> Iterator[str]:
    if deployment.device == "cuda":
        yield (
            "kv_cache_memory_bytes decides; a version that does not know it takes the memory fraction, which makes the same KV cache"
            " (before 0.21 one that is larger by what is meant for CUDA graphs: lower it)"
        )
    else:
        yield "vLLM for CPUs is a build of its own; older ones take whole GiB of KV cache from VLLM_CPU_KVCACHE_SPACE instead"
    if deployment.format == GGUF:
        yield "vLLM reads GGUF files experimentally: give it the original model's --tokenizer too"


def _option(name: str, value: str | int | float | bool | dict[str, str | int]) -> tuple[str, ...]:
    option = name.replace("_", "-")
    if isinstance(value, bool):
        return (f"--{option}" if value else f"--no-{option}",)
    return (f"--{option}", json.dumps(value) if isinstance(value, dict) else str(value))
