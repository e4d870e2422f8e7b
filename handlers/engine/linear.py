"""Linear layers as functions: those that share their input fused into one, and packed once for the processor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Linear = Callable[[Tensor], Tensor]
"""``(num_tokens, inputs)`` to ``(num_tokens, outputs)``."""


@dataclass(frozen=True)
class DenseLinear:
    """A Linear of plain numbers: ``weight`` ``(outputs, inputs)``, which ``is_packed`` if it lies in oneDNN's own layout."""

    weight: Tensor
    bias: Tensor | None
    is_packed: bool

    def __call__(self, inputs: Tensor) -> Tensor:
        if self.is_packed:
            outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")
            return outputs
        return functional.linear(inputs, self.weight, self.bias)


def beside(modules: Sequence[nn.Module]) -> Linear:
    """Return one function for modules with the same input, their outputs side by side; a quantized module is called as it is.

    The weights of modules that are fused become views of the fused one, so that nothing is kept twice.
    """
    if not all(type(module) is nn.Linear and type(module.weight) is nn.Parameter for module in modules):  # torchao's weights are subclasses
        return modules[0] if len(modules) == 1 else lambda inputs: torch.cat([module(inputs) for module in modules], dim=-1)
    weight = _fuse([module.get_parameter("weight") for module in modules])
    bias = _fuse([module.get_parameter("bias") for module in modules]) if modules[0].bias is not None else None
    packed = _pack(weight)
    return DenseLinear(weight, bias, is_packed=False) if packed is None else DenseLinear(packed, bias, is_packed=True)


def _fuse(parameters: Sequence[nn.Parameter]) -> Tensor:
    if len(parameters) == 1:
        return parameters[0].data
    fused = torch.cat([parameter.data for parameter in parameters])
    start = 0
    for parameter in parameters:
        parameter.data = fused[start : start + len(parameter)]
        start += len(parameter)
    return fused


def _pack(weight: Tensor) -> Tensor | None:
    """Return ``weight`` in oneDNN's own layout, which ``functional.linear`` makes anew in each call; None where it has none for it.

    In bfloat16 that call takes two thirds of the time at up to 32 rows (12.0 ms against 18.3 for the layers of 135M parameters, on 2 cores
    with AMX). The operator is what torch.compile emits, and private: without it all works as before.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    try:
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, 8)
    except (AttributeError, NotImplementedError, RuntimeError):
        return None
    return packed
