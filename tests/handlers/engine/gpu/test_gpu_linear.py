"""Linear layers of the CUDA runner, whatever they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from handlers.engine.gpu.linear import beside_on_gpu
from handlers.native.fp8_linear import Fp8Linear, round_rows


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled there: see tests/gpu/test_gpu_runner.py")
def test_layers_in_fp8_are_fused_and_others_called() -> None:
    torch.manual_seed(0)
    codes, scales = round_rows(torch.randn(32, 16))
    layers = [Fp8Linear(codes[rows].clone(), scales[rows, 0].clone()) for rows in (slice(0, 16), slice(16, 32))]
    plain, inputs = nn.Linear(16, 16), torch.randn(4, 16)
    for modules in (layers, [*layers, plain], [plain]):
        expected = torch.cat([module(inputs) for module in modules], dim=-1)
        assert (beside_on_gpu(modules)(inputs) - expected).norm() < 0.1 * expected.norm()
