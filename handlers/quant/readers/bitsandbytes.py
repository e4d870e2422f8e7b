"""bitsandbytes: NF4 and FP4, their scales quantized in turn or not, and int8.

In 4 bits ``weight`` holds two codes a byte, the first in the upper half; ``weight.absmax`` scales blocks of 64 (or so) values, counted on
from row to row; ``weight.quant_map`` is what the codes mean; ``weight.quant_state.bitsandbytes__nf4`` is JSON in uint8. Scales that are
quantized ("double quantization") are codes of ``weight.nested_quant_map``, scaled by ``weight.nested_absmax`` and moved by an offset.
In 8 bits ``SCB`` is the largest magnitude of a row, that of code 127.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from handlers.errors import ConfigError
from handlers.native.quantized_matrix import QuantizedMatrix
from handlers.quant.readers.blocks import spread_flat
from handlers.quant.readers.reader import Reader

_STATES = frozenset({"weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4"})
_PARTS_4_BITS = {"weight", "weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map"}
_PARTS_8_BITS = {"weight", "SCB", "weight_format"}


def make_reader(settings: Mapping[str, Any]) -> Reader:
    """Return the reader; the tensors of a layer say which of the formats it has."""
    return Reader(_STATES | {"SCB"}, _STATES | _PARTS_4_BITS | _PARTS_8_BITS, _read)


def _read(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
    return _read_int8(parts) if "SCB" in parts else _read_4_bits(parts)


def _read_int8(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
    if "weight_format" in parts and int(parts["weight_format"]):
        raise ConfigError("int8 weights in the tiles of one kind of GPU are not supported; save them again with a newer bitsandbytes")
    return QuantizedMatrix(parts["weight"], parts["SCB"].float()[:, None] / 127)


def _read_4_bits(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
    state = json.loads(bytes(next(parts[name] for name in _STATES if name in parts).tolist()))
    outputs, inputs = state["shape"]
    octets = parts["weight"].flatten()
    codes = torch.stack([octets >> 4, octets & 0xF], dim=-1).view(outputs, inputs)
    scales = spread_flat(_scales(parts, state), (outputs, inputs), state["blocksize"])
    return QuantizedMatrix(codes, scales, table=parts["weight.quant_map"].float())


def _scales(parts: Mapping[str, Tensor], state: Mapping[str, Any]) -> Tensor:
    """One each block, ``(blocks,)``."""
    absmax = parts["weight.absmax"]
    if "weight.nested_absmax" not in parts:
        return absmax
    block = torch.arange(len(absmax)) // state["nested_blocksize"]
    scales = parts["weight.nested_quant_map"][absmax.long()] * parts["weight.nested_absmax"][block]
    return scales + float(state["nested_offset"])
