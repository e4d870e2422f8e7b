"""RMS norms are torch's, and a sum becomes the residual stream."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from handlers.engine.gpu.kernels.rms_norm import add_rms_norm, rms_norm

TOLERANCES = {torch.float32: 5e-6, torch.float16: 2**-10, torch.bfloat16: 2**-7}
shapes = st.tuples(st.integers(0, 5), st.sampled_from([1, 8, 80, 128, 576, 1000]))
dtypes = st.sampled_from(list(TOLERANCES))


@settings(max_examples=30)
@given(shapes, dtypes, st.sampled_from([1e-6, 1e-3]))
def test_rows_are_normalized_as_by_torch(shape, dtype, eps):
    values, weight = (torch.randn(shape) * 3).to(dtype), torch.randn(shape[1]).to(dtype)
    expected = functional.rms_norm(values.float(), shape[1:], weight.float(), eps).to(dtype)
    torch.testing.assert_close(rms_norm(values, weight, eps), expected, rtol=TOLERANCES[dtype], atol=1e-6)


@settings(max_examples=30)
@given(shapes, dtypes)
def test_a_sum_becomes_the_residual_stream_and_is_normalized(shape, dtype):
    residual, weight = torch.randn(shape).to(dtype), torch.randn(shape[1]).to(dtype)
    update = torch.randn(shape[0], 3, shape[1]).to(dtype)[:, 1]  # rows may lie apart
    expected = residual + update
    normed = add_rms_norm(residual, update, weight, 1e-5)
    torch.testing.assert_close(residual, expected, rtol=TOLERANCES[dtype], atol=1e-6)
    torch.testing.assert_close(normed, rms_norm(residual, weight, 1e-5), rtol=0, atol=0)
