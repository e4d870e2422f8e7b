"""torchao's tensor subclasses, which safetensors holds in their parts: int8, int4 held as int8, and FP8, weights only.

``_weight_qdata`` are the codes ``(outputs, inputs)``, ``_weight_scale`` and ``_weight_zero_point`` have a column for each group. Tensors
packed for one kind of accelerator (Int4Tensor, MXTensor …) have other shapes, and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from handlers.errors import ConfigError
from handlers.native.quantized_matrix import QuantizedMatrix
from handlers.quant.readers.integers import integer_matrix
from handlers.quant.readers.reader import Reader

_PARTS = frozenset({"_weight_qdata", "_weight_scale", "_weight_zero_point", "_weight_act_scale"})


def make_reader(settings: Mapping[str, Any]) -> Reader:
    """Return the reader; the tensors of a layer say which of the formats it has."""
    return Reader(frozenset({"_weight_qdata"}), _PARTS, _read)


def _read(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
    codes, scales = parts["_weight_qdata"], parts["_weight_scale"]
    zeros = parts.get("_weight_zero_point", torch.zeros(1, 1))
    if codes.dtype not in (torch.int8, torch.float8_e4m3fn) or scales.dim() != 2 or len(scales) != len(codes):
        raise ConfigError(
            "torchao weights packed for an accelerator are not supported on a CPU; quantize with Int8WeightOnlyConfig(version=2)"
        )
    if codes.dtype == torch.float8_e4m3fn:
        return QuantizedMatrix(codes, scales.float())
    if int(codes.min()) >= -8 and int(codes.max()) < 8:  # int4, which takes half as much as codes of a table
        return integer_matrix((codes + 8).to(torch.uint8), scales, zeros.float() + 8)
    return integer_matrix(codes, scales, zeros)
