"""Quantize plain weights while they are loaded, one layer at a time: the recipes of ``handler.quantization.recipe``, on a GPU only "fp8".

A recipe gives the numbers of the library that made its format known, without that library. lm_head and embeddings stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from handlers.native.quantized_matrix import QuantizedMatrix
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.quantized import generation_config, read_config
from handlers.weights.safetensors_files import SafetensorsFiles
from handlers.weights.skeleton import CPU, Weight, fill_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Quantiles of a normal distribution, scaled to -1..1 with an exact zero (QLoRA, Dettmers et al. 2023, appendix E).
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334),
    *(-0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)
_NF4_BLOCK = 64
_INT4_GROUP = 32


def load_quantizing(checkpoint: Checkpoint, recipe: str, device: torch.device = CPU) -> PreTrainedModel:
    """Return the model on a device, every linear layer but lm_head quantized there; one at a time is in memory as plain numbers.

    Raises ConfigError if the files do not hold the tensors of the model.
    """
    quantize = RECIPES[recipe]
    config = read_config(checkpoint)
    linear = _linear_weights(config)
    tensors = SafetensorsFiles(checkpoint.directory)

    def read(name: str) -> Weight:
        return quantize(tensors[name].to(device).float()) if name in linear else tensors[name]

    model = fill_model(config, tensors, read, checkpoint.dtype_on(device), device)
    model.generation_config = generation_config(checkpoint, model)
    return model


def _linear_weights(config: PreTrainedConfig) -> frozenset[str]:
    """Return the names of the weights to quantize."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    return frozenset(f"{name}.weight" for name, module in model.named_modules() if type(module) is nn.Linear and module is not head)


def _int8(weight: Tensor, steps: float) -> QuantizedMatrix:
    """Round each row to int8; its largest number becomes ``steps``."""
    scales = _largest(weight, weight.shape[1]) / steps
    return QuantizedMatrix((weight * (1 / scales)).round().clamp(-128, 127).to(torch.int8), scales)


def _nf4(weight: Tensor) -> QuantizedMatrix:
    """Take the nearest of the 16 values of NF4, in blocks of 64, or of fewer where a row is no multiple of that: blocks end with it."""
    block = math.gcd(_NF4_BLOCK, weight.shape[1])
    scales = _largest(weight, block)
    table = torch.tensor(NF4)
    scaled = (_grouped(weight, block) * (1 / scales)[..., None]).view(weight.shape)
    codes = torch.zeros(weight.shape, dtype=torch.uint8)
    for halfway in (table[1:] + table[:-1]) / 2:
        codes += scaled > halfway  # five times as fast as torch.bucketize
    return QuantizedMatrix(codes, scales, table=table)


def _fp8(weight: Tensor) -> QuantizedMatrix:
    """Round each row to E4M3; its largest number becomes E4M3's, 448."""
    scales = _largest(weight, weight.shape[1]) / torch.finfo(torch.float8_e4m3fn).max
    return QuantizedMatrix((weight / scales).to(torch.float8_e4m3fn), scales)


def _int4(weight: Tensor) -> QuantizedMatrix:
    """Divide the range of each 32 numbers, which always has zero in it, into 15 steps, of which zero is one."""
    grouped = _grouped(weight, math.gcd(_INT4_GROUP, weight.shape[1]))
    lowest, highest = grouped.amin(-1).clamp(max=0), grouped.amax(-1).clamp(min=0)
    scales = ((highest - lowest) / 15).clamp(min=torch.finfo(torch.float32).eps)
    zeros = (-lowest / scales).round().clamp(0, 15)
    codes = ((grouped / scales[..., None]).round() + zeros[..., None]).clamp(0, 15).to(torch.uint8)
    return QuantizedMatrix(codes.view(weight.shape), scales, minima=-zeros * scales, table=torch.arange(16.0))


def _grouped(weight: Tensor, group_size: int) -> Tensor:
    return weight.view(len(weight), -1, group_size)  # (outputs, groups, group_size)


def _largest(weight: Tensor, group_size: int) -> Tensor:
    """Return the largest magnitude of each group, never zero.  # (outputs, groups)"""
    return _grouped(weight, group_size).abs().amax(-1).clamp(min=torch.finfo(torch.float32).tiny)


RECIPES: Mapping[str, Callable[[Tensor], QuantizedMatrix]] = {
    "int8": partial(_int8, steps=127.0),  # as bitsandbytes
    "nf4": _nf4,  # as bitsandbytes
    "fp8": _fp8,
    "torchao-int8": partial(_int8, steps=127.5),  # as torchao's Int8WeightOnlyConfig
    "torchao-int4": _int4,  # as torchao's IntxWeightOnlyConfig(int4, PerGroup(32), asymmetric)
}
