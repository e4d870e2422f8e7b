"""A linear layer over a quantized weight that stays quantized in memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from handlers.native.quantized_matrix import QuantizedMatrix


class PackedLinear(nn.Module):
    """Multiply by a quantized weight, ``(…, inputs)`` to ``(…, outputs)``, in the dtype of the inputs.

    Takes the place of an ``nn.Linear``. ``weight_bytes`` is what its weight takes in memory.
    """

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = matrix.codes.shape
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self._matrix = matrix

    @property
    def weight_bytes(self) -> int:
        """What the weight takes in memory."""
        matrix = self._matrix
        return sum(part.nbytes for part in (matrix.codes, matrix.scales, matrix.minima, matrix.order) if part is not None)

    def dequantize(self) -> Tensor:
        """Return the weight in float32, ``(outputs, inputs)``."""
        return self._matrix.dequantize()

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply."""
        weight = self.dequantize().to(inputs.dtype)
        return functional.linear(inputs, weight, None if self.bias is None else self.bias.to(inputs.dtype))


def can_pack(device: torch.device) -> bool:
    """Whether quantized weights can be multiplied as they are on this machine; elsewhere they are better loaded dequantized."""
    return device.type == "cpu"
