"""The kernel that rounds rows to FP8, against plain operations."""

from __future__ import annotations

import pytest
import torch

from handlers.engine.gpu.kernels.round_rows import round_rows
from handlers.engine.gpu.linear import beside_on_gpu
from handlers.native import fp8_linear
from handlers.native.fp8_linear import Fp8Linear


def make_rows(num_rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    torch.manual_seed(width)
    rows = torch.randn(num_rows, width, dtype=dtype) * torch.logspace(-3, 3, num_rows)[:, None].to(dtype)
    rows[0] = 0
    return rows


@pytest.mark.parametrize(("num_rows", "width", "dtype"), [(1, 16, torch.float32), (5, 48, torch.bfloat16), (3, 130, torch.float16)])
def test_rows_are_rounded_as_by_plain_operations(num_rows: int, width: int, dtype: torch.dtype) -> None:
    rows = make_rows(num_rows, width, dtype)
    codes, scales = round_rows(rows)
    expected_codes, expected_scales = fp8_linear.round_rows(rows)
    assert (codes.dtype, codes.shape, scales.shape) == (torch.float8_e4m3fn, rows.shape, (num_rows, 1))
    torch.testing.assert_close(scales, expected_scales)
    # The interpreter halves what it rounds up to a power of 2.
    ratios = (codes.float() / expected_codes.float()).nan_to_num(1.0)
    assert set(ratios.flatten().tolist()) <= {0.5, 1.0}
    assert (ratios == 1).float().mean() > 0.9
    assert not codes[0].float().any()


def test_layers_in_fp8_are_fused_and_others_called() -> None:
    weight, scales = fp8_linear.round_rows(torch.randn(32, 16))
    layers = [Fp8Linear(weight[:16].clone(), scales[:16, 0].clone()), Fp8Linear(weight[16:].clone(), scales[16:, 0].clone())]
    plain = torch.nn.Linear(16, 16)
    inputs = make_rows(4, 16, torch.float32)
    for modules in (layers, [*layers, plain], [plain]):
        expected = torch.cat([module(inputs) for module in modules], dim=-1)
        assert (beside_on_gpu(modules)(inputs) - expected).norm() < 0.1 * expected.norm()
