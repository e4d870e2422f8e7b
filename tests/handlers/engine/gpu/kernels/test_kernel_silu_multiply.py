"""The gate of an MLP."""

import pytest
import torch
from torch.nn import functional

from handlers.engine.gpu.kernels.silu_multiply import silu_multiply


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float16, 2**-10), (torch.bfloat16, 2**-7)])
@pytest.mark.parametrize(("num_tokens", "width"), [(0, 64), (1, 7), (3, 1024), (2, 1100)])
def test_the_first_half_gates_the_second(dtype, tolerance, num_tokens, width):
    gate_up = (torch.randn(num_tokens, 2 * width) * 4).to(dtype)
    gate, up = gate_up.float().chunk(2, dim=-1)
    torch.testing.assert_close(silu_multiply(gate_up), (functional.silu(gate) * up).to(dtype), rtol=tolerance, atol=1e-6)
