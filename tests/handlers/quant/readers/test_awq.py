"""AWQ's layout, packed here by its definition; a test of loading has a checkpoint of gptqmodel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_integers import pack

from handlers.errors import ConfigError
from handlers.quant.readers.awq import make_reader

ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def pack_rows(values):
    interleaved = values.view(len(values), -1, 8)[:, :, ORDER].flatten(1)
    return torch.tensor([pack(row, 4) for row in interleaved.tolist()], dtype=torch.int32)


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([1, 2, 4]))
def test_a_layer_reads_as_it_was_packed(seed, num_groups):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 16, (32, 24), generator=generator)
    zeros = torch.randint(0, 16, (num_groups, 24), generator=generator)
    scales = torch.rand(num_groups, 24, generator=generator).half()
    parts = {"qweight": pack_rows(codes), "qzeros": pack_rows(zeros), "scales": scales}
    group = torch.arange(32) // (32 // num_groups)
    expected = (codes - zeros[group]) * scales.float()[group]
    torch.testing.assert_close(make_reader({"version": "GEMM"}).read(parts).dequantize(), expected.T, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("settings", [{"version": "gemv"}, {"version": "gemm", "bits": 8}])
def test_other_layouts_are_refused(settings):
    with pytest.raises(ConfigError, match="quantize to 4 bits with version: gemm"):
        make_reader(settings)
