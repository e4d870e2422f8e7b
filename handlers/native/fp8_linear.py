"""A linear layer over a weight in FP8 (E4M3), which GPUs since compute capability 8.9 multiply as it is."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from handlers.native.quantized_matrix import QuantizedMatrix

_LARGEST = torch.finfo(torch.float8_e4m3fn).max
_SMALLEST = 1e-12
"""The least "largest number of a row": the scale of a row of zeros."""
_MULTIPLE = 16
"""Inputs and outputs of ``torch._scaled_mm`` on a GPU."""


class Fp8Linear(nn.Module):
    """Multiply by a weight in FP8, ``(…, inputs)`` to ``(…, outputs)``, in the dtype of the inputs.

    Takes the place of an ``nn.Linear``. Inputs are rounded to FP8 too, each row with a scale of its own; sums are float32, and outputs
    rounded to bfloat16. ``weight`` is float8_e4m3fn ``(outputs, inputs)``, ``scales`` float32 ``(outputs,)``.
    """

    def __init__(self, weight: Tensor, scales: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.scales = nn.Parameter(scales, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    @classmethod
    def beside(cls, layers: Sequence[Fp8Linear]) -> Fp8Linear:
        """Return one layer for several with the same inputs, their outputs side by side; what they keep become views of it."""
        fused = cls(
            torch.cat([layer.weight for layer in layers]),
            torch.cat([layer.scales for layer in layers]),
            None if layers[0].bias is None else torch.cat([layer.get_parameter("bias") for layer in layers]),
        )
        sizes = [layer.out_features for layer in layers]
        for layer, weight, scales in zip(layers, torch.split(fused.weight, sizes), torch.split(fused.scales, sizes), strict=True):
            layer.weight.data, layer.scales.data = weight, scales
        return fused

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply."""
        outputs = multiply(*round_rows(inputs.reshape(-1, self.in_features)), self.weight, self.scales, self.bias)
        return outputs.to(inputs.dtype).view(*inputs.shape[:-1], self.out_features)


def can_multiply(matrix: QuantizedMatrix, device: torch.device) -> bool:
    """Whether a device multiplies by a weight: in FP8, with a scale for each output, or one for all, and nothing else."""
    outputs, inputs = matrix.codes.shape
    return (
        matrix.codes.dtype == torch.float8_e4m3fn
        and matrix.group_size == inputs
        and matrix.minima is None
        and matrix.order is None
        and outputs % _MULTIPLE == inputs % _MULTIPLE == 0
        and device.type == "cuda"
        and torch.cuda.get_device_capability(device) >= (8, 9)
    )


def round_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Round to FP8, the largest number of each row to FP8's; return that and the scales, float32 ``(num_rows, 1)``, to multiply by."""
    scales = rows.abs().amax(-1, keepdim=True).float().clamp_(min=_SMALLEST) / _LARGEST
    return (rows / scales).to(torch.float8_e4m3fn), scales


def multiply(rows: Tensor, row_scales: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``rows`` times ``weight`` in bfloat16, ``(num_rows, outputs)``: what a GPU gives where rows have scales."""
    bias = None if bias is None else bias.to(torch.bfloat16)
    return torch._scaled_mm(rows, weight.t(), row_scales, scales[None], bias, out_dtype=torch.bfloat16, use_fast_accum=True)
