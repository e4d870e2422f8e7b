"""How far each linear layer's weight is from its source."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from archiver.quantize.receipt import LayerError
from handlers.native.packed_linear import PackedLinear


def worst_layers(source: nn.Module, quantized: nn.Module, number: int = 10) -> tuple[LayerError, ...]:
    """Return the linear layers of two models of one architecture whose weights differ most, the worst first."""
    errors = sorted(layer_errors(source, quantized), key=_badness, reverse=True)
    return tuple(error for error in errors[:number] if error.relative_error != 0.0)


def layer_errors(source: nn.Module, quantized: nn.Module) -> Iterator[LayerError]:
    """Yield ``|quantized - source| / |source|`` of every linear layer, one weight in memory at a time."""
    others = dict(quantized.named_modules())
    for name, module in source.named_modules():
        if isinstance(module, nn.Linear) and name in others:
            weight = dense_weight(module)
            error = torch.linalg.norm(dense_weight(others[name]).to(weight.device) - weight) / torch.linalg.norm(weight)
            yield LayerError(name, error.item())


@torch.inference_mode()
def dense_weight(layer: Any) -> Tensor:
    """Return the weight ``(outputs, inputs)`` of a linear layer of any library in float32.

    A layer whose weight is in a form that only its library knows tells what it is by multiplying the unit matrix.
    """
    if isinstance(layer, PackedLinear):
        return layer.dequantize()
    stored: Tensor = layer.weight
    if type(stored) in (Tensor, nn.Parameter) and stored.shape == (layer.out_features, layer.in_features):
        return stored.detach().float()
    product: Tensor = layer(torch.eye(layer.in_features, dtype=torch.bfloat16, device=stored.device)).float()
    return (product if layer.bias is None else product - layer.bias.float()).T


def _badness(error: LayerError) -> float:
    return math.inf if math.isnan(error.relative_error) else error.relative_error
