"""Rows are rounded to FP8 as by plain operations."""

import pytest
import torch

from handlers.engine.gpu.kernels.round_rows import round_rows
from handlers.native import fp8_linear


@pytest.mark.parametrize(("num_rows", "width", "dtype"), [(1, 16, torch.float32), (5, 48, torch.bfloat16), (3, 130, torch.float16)])
def test_rows_are_rounded_as_by_plain_operations(num_rows, width, dtype):
    torch.manual_seed(0)
    rows = torch.randn(num_rows, width).to(dtype) * torch.logspace(-3, 3, num_rows)[:, None].to(dtype)
    rows[0] = 0
    codes, scales = round_rows(rows)
    expected_codes, expected_scales = fp8_linear.round_rows(rows)
    assert (codes.dtype, codes.shape, scales.shape) == (torch.float8_e4m3fn, rows.shape, (num_rows, 1))
    torch.testing.assert_close(scales, expected_scales)
    same = codes.float() == expected_codes.float()
    assert same.float().mean() > 0.9  # the interpreter halves what it rounds up to a power of 2
    assert same[0].all()
