"""compressed-tensors, what llmcompressor writes: integers packed or plain, and FP8.

The tensors of a layer say themselves how it was quantized (bits, groups, zeros), whichever of the configuration's groups it belongs to.
``weight_packed`` holds unsigned codes, eight of 4 bits in a word, the lowest bits first, and ``weight_zero_point`` with it packs
successive outputs in the same way; plain ``weight`` has int8 or FP8 codes. Activations are not rounded: schemes that would (W8A8,
FP8_DYNAMIC) differ from the kernels of a GPU by that rounding.

Layout: https://github.com/neuralmagic/compressed-tensors
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from handlers.errors import ConfigError
from handlers.native.quantized_matrix import QuantizedMatrix
from handlers.quant.readers.float8 import float8_matrix
from handlers.quant.readers.integers import activation_order, integer_matrix, unpack
from handlers.quant.readers.reader import Reader

_LAYOUTS = {"pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense"}
_WEIGHT = {"weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"}
_ACTIVATIONS = {"input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point"}
_KV_CACHE = {"k_scale", "v_scale", "q_scale"}


def make_reader(settings: Mapping[str, Any]) -> Reader:
    """Return the reader for a checkpoint's settings; raises ConfigError for layouts and transforms that it cannot undo."""
    schemes = list((settings.get("config_groups") or {}).values())
    layouts = {settings.get("format"), *(scheme.get("format") for scheme in schemes)} - {None}
    if unknown := sorted(layouts - _LAYOUTS):
        raise ConfigError(
            f"compressed-tensors weights in the layout {unknown[0]!r} are not supported on a CPU; quantize to W4A16 or FP8_DYNAMIC"
        )
    if (settings.get("transform_config") or {}).get("config_groups"):
        raise ConfigError("compressed-tensors transforms (rotations) are not supported on a CPU; quantize without them")
    if (settings.get("sparsity_config") or {}).get("format", "dense") != "dense":
        raise ConfigError("compressed-tensors sparse weights are not supported on a CPU; quantize without pruning")
    block = next((blocks for scheme in schemes if (blocks := (scheme.get("weights") or {}).get("block_structure"))), (128, 128))

    def read(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
        if "weight_packed" in parts:
            return _packed(parts)
        if parts["weight"].dtype == torch.int8:
            return _plain(parts)
        return float8_matrix(parts["weight"], parts["weight_scale"], tuple(block))

    return Reader(frozenset({"weight_packed", "weight_scale"}), frozenset(_WEIGHT | _ACTIVATIONS), read)


def _packed(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
    packed = parts["weight_packed"]
    outputs, inputs = parts["weight_shape"].tolist()
    bits = packed.shape[1] * 32 // inputs
    codes = unpack(packed, bits)[:, :inputs]
    scales = _by_output(parts["weight_scale"], outputs)
    order = activation_order(parts.get("weight_g_idx"), scales.shape[1])
    zeros: Tensor | int = 1 << bits - 1 if codes.dtype == torch.uint8 else 0
    if "weight_zero_point" in parts:
        zeros = unpack(parts["weight_zero_point"].T, bits).T[:outputs]
    return integer_matrix(codes if order is None else codes[:, order], scales, zeros, order)


def _plain(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
    codes, zeros = parts["weight"], parts.get("weight_zero_point")
    scales = _by_output(parts["weight_scale"], len(codes))
    return integer_matrix(codes, scales, 0 if zeros is None else _by_output(zeros, len(codes)))


def _by_output(values: Tensor, outputs: int) -> Tensor:
    """One value for the whole weight, one each output, or one each group become ``(outputs, groups)``."""
    grouped = values if values.dim() == 2 else values.view(-1, 1)
    return grouped.expand(outputs, -1).contiguous()
