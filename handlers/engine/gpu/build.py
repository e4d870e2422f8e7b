"""Whether a model gets the CUDA runner, and with what: decided by the model, the GPU and the operator."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch

from handlers.config import EngineConfig
from handlers.engine.decoder_parts import DecoderParts
from handlers.engine.gpu.launching import can_launch

if TYPE_CHECKING:
    from handlers.engine.gpu.paged_attention import Prefill
    from handlers.engine.gpu.runner import GpuRunner

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_SMALLEST_HEAD, _LARGEST_HEAD = 16, 256


def fits_gpu(parts: DecoderParts) -> bool:
    """Whether the kernels can run a decoder: Triton works, all of it lies on one GPU, and its heads fit their tiles."""
    device = parts.embedding.device
    modules = [module for layer in parts.layers for module in (*layer.qkv, layer.output, *layer.gate_up, layer.down)]
    weights = [parameter for module in (*modules, parts.head) for parameter in module.parameters()]
    return (
        device.type == "cuda"
        and all(weight.device == device for weight in weights)
        and parts.embedding.dtype in _DTYPES
        and _SMALLEST_HEAD <= parts.head_dim <= _LARGEST_HEAD
        and can_launch()
    )


def make_gpu_runner(parts: DecoderParts, config: EngineConfig, num_blocks: int) -> GpuRunner:
    """Return a runner with few blocks for a model that fits."""
    from handlers.engine.gpu.graphs import CudaCapture
    from handlers.engine.gpu.runner import GpuRunner

    stream = torch.cuda.Stream(parts.embedding.device)  # type: ignore[no-untyped-call]
    return GpuRunner(
        parts,
        num_blocks=num_blocks,
        block_tokens=config.block_tokens,
        kv_dtype=kv_dtype(config, parts.embedding.dtype),
        prefill=_choose_prefill(parts, config),
        new_capture=partial(CudaCapture, stream) if config.cuda_graphs else None,
        max_rows=most_rows(config),
    )


def kv_dtype(config: EngineConfig, model_dtype: torch.dtype) -> torch.dtype:
    """Return the numbers in which keys and values are kept."""
    return torch.float8_e4m3fn if config.kv_dtype == "fp8" else model_dtype


def most_rows(config: EngineConfig) -> int:
    """Return how many tokens of running sequences a step can have, guesses included."""
    speculation = config.speculation
    if speculation.method == "none":
        return config.max_running
    guessed = min(config.max_running * (1 + speculation.max_draft_tokens), speculation.most_rows("cuda"))
    return max(config.max_running, guessed)


def _choose_prefill(parts: DecoderParts, config: EngineConfig) -> Prefill:
    """Torch's kernel knows no soft cap and wants keys in the numbers of the queries."""
    from handlers.engine.gpu.kernels.prefill_attention import prefill_attention
    from handlers.engine.gpu.prefill_choice import choose_prefill, find_torch_prefill, gpu_time_ms, trial_like

    if config.kv_dtype == "fp8" or any(layer.scoring.softcap is not None for layer in parts.layers):
        return prefill_attention
    return choose_prefill(prefill_attention, find_torch_prefill, trial_like(parts, config.block_tokens), gpu_time_ms)
