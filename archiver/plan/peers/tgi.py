"""text-generation-inference: ``--cuda-memory-fraction`` limits the process to a share of the GPU's total memory.

After a trial prefill of ``--max-batch-prefill-tokens`` tokens, 0.95 of what is free within that limit becomes KV cache, and the trial's own
KV cache comes on top (server/text_generation_server: ``get_cuda_free_memory`` in utils/import_utils.py, ``warmup`` in
models/flash_causal_lm.py). Everything on the GPU counts, the CUDA context too; CUDA graphs are captured later, in the other 0.05.
"""

from __future__ import annotations

from collections.abc import Iterator

from archiver.plan.peers.deployment import Deployment
from archiver.plan.peers.rendering import Options, Rendering, flags, round_down
from handlers.quant.formats import GGUF, MXFP4, TORCHAO_FP8, TORCHAO_INT4, TORCHAO_INT8

MEANING = "of the GPU's total memory: everything but CUDA graphs; of what weights and a trial prefill leave, 0.95 become KV cache"
WIGGLE_ROOM = 0.95
_CANNOT_READ = (GGUF, MXFP4, TORCHAO_FP8, TORCHAO_INT4, TORCHAO_INT8)


def render(deployment: Deployment) -> Rendering:
    """Return the command of its launcher."""
    fraction = None if deployment.device == "cpu" else memory_fraction(deployment)
    options: Options = {
        "--model-id": deployment.model,
        "--hostname": deployment.host,
        "--port": deployment.port,
        "--dtype": deployment.dtype if deployment.dtype in ("float16", "bfloat16") else None,
        "--num-shard": deployment.tensor_parallel * deployment.pipeline_parallel,
        "--max-total-tokens": deployment.max_model_len,
        "--max-input-tokens": max(deployment.max_model_len - 1, 1),
        "--max-batch-size": deployment.max_running,
        "--max-batch-prefill-tokens": deployment.prefill_chunk_tokens,
        "--max-batch-total-tokens": deployment.kv_tokens,
        "--cuda-memory-fraction": fraction,
        "--kv-cache-dtype": "fp8_e4m3fn" if deployment.kv_dtype == "fp8" else None,
        "--speculate": deployment.speculative_tokens or None,
    }
    meaning = "none: on a CPU it takes 0.9 of the memory that is free" if fraction is None else MEANING
    environment = {"PREFIX_CACHING": "1" if deployment.prefix_caching else "0"}
    return Rendering(("text-generation-launcher", *flags(options)), meaning, fraction, environment, notes=tuple(_notes(deployment)))


def memory_fraction(deployment: Deployment) -> float:
    """Return the share of total memory that makes the KV cache as large; at most all, which may be too little."""
    return min(round_down(_needed_bytes(deployment) / deployment.device_bytes), 1)


def _needed_bytes(deployment: Deployment) -> float:
    """What must be within the limit for the KV cache to be ``kv_bytes``."""
    missing_kv_bytes = max(deployment.kv_bytes - _trial_kv_bytes(deployment), 0)
    return _bytes_in_trial(deployment) + missing_kv_bytes / WIGGLE_ROOM


def _bytes_in_trial(deployment: Deployment) -> float:
    """What the trial prefill takes, all in all."""
    return deployment.context_bytes + deployment.weight_bytes + deployment.activation_bytes + _trial_kv_bytes(deployment)


def _trial_kv_bytes(deployment: Deployment) -> float:
    return deployment.prefill_chunk_tokens * deployment.kv_bytes_per_token


def _notes(deployment: Deployment) -> Iterator[str]:
    if deployment.device == "cpu":
        yield "on a CPU the size of the KV cache cannot be set; max-batch-total-tokens limits what is used of it"
    elif _bytes_in_trial(deployment) > deployment.device_bytes:
        yield f"it will not start: its trial prefill of {deployment.prefill_chunk_tokens} tokens does not fit; plan with fewer"
    elif (needed := _needed_bytes(deployment)) > deployment.device_bytes:
        missing = (needed - deployment.device_bytes) * WIGGLE_ROOM
        yield f"it leaves 0.05 of its memory free, so its KV cache is {missing / 1e9:.2f} GB smaller than planned"
    if deployment.prefill_chunk_tokens < deployment.max_model_len:
        yield "prompts longer than max-batch-prefill-tokens need version 3, which processes them in chunks"
    if deployment.pipeline_parallel > 1:
        yield "it has no pipeline parallelism: all devices are shards of one tensor-parallel group, so heads must divide among them"
    if deployment.data_parallel > 1:
        yield f"it has no data parallelism: run {deployment.data_parallel} of it on devices and ports of their own, behind a load balancer"
    if deployment.has_latent_attention:
        yield "of latent attention it keeps keys and values of all heads: as many bytes hold far fewer tokens"
    if deployment.format in _CANNOT_READ:
        yield f"it cannot read weights in the format {deployment.format.name}"
