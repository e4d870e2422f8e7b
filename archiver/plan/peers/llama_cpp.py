"""llama.cpp has no share of memory: ``--ctx-size`` tokens of KV cache are allocated, whatever is free.

With ``--kv-unified`` all slots (``--parallel``) share them; the number is made a multiple of 256 (src/llama-context.cpp). Keys and values
of 8 bits are Q8_0: 34 bytes for 32 numbers (ggml/src/ggml-common.h, ``block_q8_0``).
"""

from __future__ import annotations

from collections.abc import Iterator

from archiver.plan.peers.deployment import Deployment
from archiver.plan.peers.rendering import Options, Rendering, beyond_one, flags
from handlers.quant.formats import GGUF

MEANING = "none: the tokens of the KV cache are given, and all layers go to the GPU"
PADDING_TOKENS = 256
_Q8_0_BYTES = 34 / 32
_CACHE_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_ALL_LAYERS = 999


def render(deployment: Deployment) -> Rendering:
    """Return the command of llama.cpp's server."""
    is_fp8 = deployment.kv_dtype == "fp8"
    cache_type = "q8_0" if is_fp8 else _CACHE_TYPES.get(deployment.dtype, "f16")
    num_devices = deployment.tensor_parallel * deployment.pipeline_parallel
    options: Options = {
        "--model": deployment.model,
        "--host": deployment.host,
        "--port": deployment.port,
        "--alias": deployment.served_name,
        "--ctx-size": context_tokens(deployment),
        "--kv-unified": True,
        "--parallel": deployment.max_running,
        "--cache-type-k": cache_type,
        "--cache-type-v": cache_type,
        "--flash-attn": "on" if is_fp8 else "auto",  # quantized values ask for it
        "--batch-size": deployment.prefill_chunk_tokens + deployment.max_running,
        "--ubatch-size": deployment.prefill_chunk_tokens,
        "--no-cache-prompt": not deployment.prefix_caching,
        "--n-gpu-layers": _ALL_LAYERS if deployment.device == "cuda" else 0,
        "--split-mode": "layer" if beyond_one(num_devices) else None,
        "--tensor-split": ",".join("1" * num_devices) if beyond_one(num_devices) else None,
        "--threads": deployment.num_threads,
    }
    return Rendering(("llama-server", *flags(options)), MEANING, notes=tuple(_notes(deployment)))


def context_tokens(deployment: Deployment) -> int:
    """Return the tokens of KV cache, of all slots together, that take no more than the bytes that are planned."""
    token_bytes = deployment.kv_bytes_per_token * (_Q8_0_BYTES if deployment.kv_dtype == "fp8" else 1)
    return int(deployment.kv_bytes / token_bytes) // PADDING_TOKENS * PADDING_TOKENS


def _notes(deployment: Deployment) -> Iterator[str]:
    if deployment.format != GGUF:
        yield "it reads GGUF files only: `marquee quantize MODEL --recipe gguf:Q8_0` makes one, and --model must name it"
    if deployment.kv_dtype == "fp8":
        yield "it has no 8-bit floating point for keys and values: Q8_0 takes a sixteenth more, so fewer tokens fit"
    if deployment.tensor_parallel > 1:
        yield "it divides layers among devices, which then work one after the other: as large a model, but no faster a step"
    if deployment.data_parallel > 1:
        yield f"it has no data parallelism: run {deployment.data_parallel} of it on devices and ports of their own, behind a load balancer"
    if deployment.speculative_tokens:
        yield "guessing by n-grams is set by options that change with its versions: see llama-server --help"
    if deployment.has_latent_attention:
        yield "it keeps the latents of latent attention only with files that were converted since April 2025"
    yield f"a sequence may grow beyond {deployment.max_model_len:,} tokens, up to the model's own limit"
