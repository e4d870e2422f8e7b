"""RMS norms are torch's, and a sum becomes the residual stream."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from handlers.engine.gpu.kernels.rms_norm import add_rms_norm, rms_norm

DTYPES = st.sampled_from([torch.float32, torch.float16, torch.bfloat16])
TOLERANCES = {torch.float32: 1e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}


@settings(max_examples=30)
@given(st.integers(0, 5), st.sampled_from([1, 8, 80, 128, 576, 1000]), DTYPES, st.sampled_from([1e-6, 1e-3]))
def test_rows_are_normalized_as_by_torch(num_tokens, hidden, dtype, eps):
    values, weight = (torch.randn(num_tokens, hidden) * 3).to(dtype), torch.randn(hidden).to(dtype)
    expected = functional.rms_norm(values.float(), (hidden,), weight.float(), eps).to(dtype)
    torch.testing.assert_close(rms_norm(values, weight, eps), expected, rtol=TOLERANCES[dtype], atol=1e-6)


def test_a_sum_becomes_the_residual_stream_and_is_normalized():
    residual, update, weight = torch.randn(3, 96), torch.randn(3, 96), torch.randn(96)
    total = residual + update
    normed = add_rms_norm(residual, update, weight, 1e-5)
    torch.testing.assert_close(residual, total)
    torch.testing.assert_close(normed, functional.rms_norm(total, (96,), weight, 1e-5))
