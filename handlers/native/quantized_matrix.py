"""What every quantized weight is once its format has been read: small codes, and numbers that turn them back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class QuantizedMatrix:
    """A weight ``(outputs, inputs)`` in groups of ``group_size`` inputs, which share a scale and, where there is one, a minimum::

        weight[o, i] = value(codes[o, i]) * scales[o, i // group_size] + minima[o, i // group_size]

    ``codes`` are uint8 from 0 to 15 with a ``table`` of their 16 values (4-bit integers of any sign, NF4, FP4), or without one int8 or
    float8_e4m3fn, which are values themselves. ``order``: where the weight's inputs stand in the layer's (GPTQ's activation order): the
    layer multiplies ``inputs[:, order]``; None if they stand as they are. Everything else is float32; the kernels round a table's values to
    bfloat16, in which small integers are exact.
    """

    codes: Tensor  # (outputs, inputs)
    scales: Tensor  # (outputs, inputs / group_size)
    minima: Tensor | None = None  # (outputs, inputs / group_size)
    table: Tensor | None = None  # (16,)
    order: Tensor | None = None  # (inputs,) int64

    def __post_init__(self) -> None:
        outputs, inputs = self.codes.shape
        groups = self.scales.shape[1]
        if self.codes.dtype != (torch.uint8 if self.table is not None else self.codes.dtype):
            raise ValueError(f"codes with a table must be uint8, not {self.codes.dtype}")
        if self.table is None and self.codes.dtype not in (torch.int8, torch.float8_e4m3fn):
            raise ValueError(f"codes without a table must be int8 or float8_e4m3fn, not {self.codes.dtype}")
        if self.scales.shape != (outputs, groups) or inputs % groups:
            raise ValueError(f"scales {tuple(self.scales.shape)} do not divide a weight of {outputs} by {inputs}")
        if self.minima is not None and self.minima.shape != self.scales.shape:
            raise ValueError(f"minima {tuple(self.minima.shape)} must have the shape of the scales, {tuple(self.scales.shape)}")

    @property
    def group_size(self) -> int:
        """Inputs that share a scale."""
        return self.codes.shape[1] // self.scales.shape[1]

    def dequantize(self) -> Tensor:
        """Return the weight in float32, ``(outputs, inputs)``, its inputs in the layer's own order."""
        outputs, inputs = self.codes.shape
        values = self.codes.float() if self.table is None else self.table[self.codes.long()]
        weight = values.view(outputs, -1, self.group_size) * self.scales[..., None]
        if self.minima is not None:
            weight += self.minima[..., None]
        weight = weight.view(outputs, inputs)
        return weight if self.order is None else torch.empty_like(weight).index_copy_(1, self.order, weight)
