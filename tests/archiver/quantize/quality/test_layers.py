"""Relative errors of linear weights, in whatever form a layer holds them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from archiver.quantize.quality.layers import dense_weight, layer_errors, worst_layers
from handlers.native.packed_linear import PackedLinear
from handlers.native.quantized_matrix import QuantizedMatrix


class ForeignLinear(nn.Module):
    """A layer as a library makes it: its weight is in a form of its own, and only its forward knows it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = nn.Parameter(linear.weight.detach().T.reshape(-1, 1), requires_grad=False)
        self.bias = linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        weight = self.weight.view(self.in_features, self.out_features).to(inputs.dtype)
        return inputs @ weight + self.bias.to(inputs.dtype)


def pack(weight: torch.Tensor) -> QuantizedMatrix:
    scales = weight.abs().amax(1, keepdim=True) / 127
    return QuantizedMatrix((weight / scales).round().to(torch.int8), scales)


def make_model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 8), nn.Linear(8, 8)).requires_grad_(False)


def test_a_layer_with_a_form_of_its_own_tells_its_weight():
    linear = nn.Linear(24, 12).requires_grad_(False)
    torch.testing.assert_close(dense_weight(ForeignLinear(linear)), linear.weight, rtol=1e-2, atol=1e-2)


def test_a_packed_weight_is_compared_as_it_dequantizes():
    source = make_model()
    quantized = copy.deepcopy(source)
    quantized[0] = packed = PackedLinear(pack(source[0].weight), source[0].bias)
    (worst,) = worst_layers(source, quantized)
    expected = (packed.dequantize() - source[0].weight).norm() / source[0].weight.norm()
    assert worst.name == "0"
    assert worst.relative_error == pytest.approx(float(expected), rel=1e-5)
    assert 0 < worst.relative_error < 0.01


def test_the_worst_come_first_and_what_is_no_number_is_the_worst():
    source = make_model()
    quantized = copy.deepcopy(source)
    quantized[0].weight += 0.01
    quantized[2].weight[0, 0] = math.nan
    quantized[3].weight *= 2
    assert [error.name for error in worst_layers(source, quantized)] == ["2", "3", "0"]
    assert worst_layers(source, quantized, number=2)[1].relative_error == pytest.approx(1.0)
    assert worst_layers(source, source) == ()
    assert len(list(layer_errors(source, quantized))) == 3
