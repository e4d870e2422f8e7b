"""FP8 (E4M3) weights with scales of a tensor, of rows, or of blocks: DeepSeek's fine-grained FP8, fbgemm's, and early vLLM checkpoints.

Only the weights are used in FP8: on a CPU activations stay in the model's dtype, where a GPU would round them to FP8, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from handlers.native.quantized_matrix import QuantizedMatrix
from handlers.quant.readers.blocks import spread
from handlers.quant.readers.reader import Reader

_SCALES = ("weight_scale_inv", "weight_scale")
"""Both are what a weight is multiplied by."""


def make_reader(settings: Mapping[str, Any]) -> Reader:
    """Return the reader for a checkpoint's settings, of which the size of a block matters."""
    rows, columns = settings.get("weight_block_size") or (128, 128)

    def read(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
        scales = next(parts[name] for name in _SCALES if name in parts)
        return float8_matrix(parts["weight"], scales, (rows, columns))

    ignored = {"input_scale", "activation_scale", "input_scale_ub"}
    return Reader(frozenset(_SCALES), frozenset({"weight", *_SCALES, *ignored}), read)


def float8_matrix(weight: Tensor, scales: Tensor, block: tuple[int, int]) -> QuantizedMatrix:
    """Return a weight ``(outputs, inputs)`` with one scale, one each output, or one each block."""
    outputs, inputs = weight.shape
    if scales.numel() in (1, outputs):
        return QuantizedMatrix(weight, scales.float().view(-1, 1).expand(outputs, 1).contiguous())
    return QuantizedMatrix(weight, spread(scales, (outputs, inputs), block))
