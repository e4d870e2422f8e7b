"""Quantize a weight by rounding to nearest: no format's own way, but the numbers that every format has."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from handlers.native.quantized_matrix import QuantizedMatrix


def to_4_bits(weight: Tensor, group_size: int = 32) -> QuantizedMatrix:
    """Asymmetric, with a minimum for each group."""
    outputs, inputs = weight.shape
    groups = weight.float().view(outputs, -1, group_size)
    minima = groups.amin(-1)
    scales = ((groups.amax(-1) - minima) / 15).clamp_min(1e-8)
    codes = ((groups - minima[..., None]) / scales[..., None]).round().to(torch.uint8)
    return QuantizedMatrix(codes.view(outputs, inputs), scales, minima, table=torch.arange(16.0))


def to_int8(weight: Tensor) -> QuantizedMatrix:
    """Symmetric, with a scale for each output."""
    scales = (weight.float().abs().amax(-1, keepdim=True) / 127).clamp_min(1e-8)
    return QuantizedMatrix((weight.float() / scales).round().to(torch.int8), scales)


def to_fp8(weight: Tensor) -> QuantizedMatrix:
    """E4M3, with a scale for each output."""
    scales = (weight.float().abs().amax(-1, keepdim=True) / 448).clamp_min(1e-8)
    return QuantizedMatrix((weight.float() / scales).to(torch.float8_e4m3fn), scales)


def in_another_order(weight: Tensor) -> QuantizedMatrix:
    """Groups of inputs that do not stand side by side, as GPTQ's activation order makes them."""
    order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(weight.shape[1]))
    return replace(to_4_bits(weight[:, order]), order=order)


QUANTIZERS = {"4-bit": to_4_bits, "int8": to_int8, "fp8": to_fp8, "ordered": in_another_order}
