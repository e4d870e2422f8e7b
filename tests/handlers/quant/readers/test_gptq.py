"""GPTQ's layout, packed here by its definition; tests of loading have checkpoints of gptqmodel."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_integers import pack

from handlers.errors import ConfigError
from handlers.quant.readers.gptq import make_reader

INPUTS, OUTPUTS = 32, 16


def pack_rows(values, bits):
    return torch.tensor([pack(row, bits) for row in values.tolist()], dtype=torch.int32)


@settings(deadline=None)
@given(st.integers(0, 1000), st.sampled_from([2, 4, 8]), st.sampled_from([1, 2, 4]), st.booleans(), st.sampled_from(["gptq", "gptq_v2"]))
def test_a_layer_reads_as_it_was_packed(seed, bits, num_groups, is_ordered, layout):
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 1 << bits, (INPUTS, OUTPUTS), generator=generator)
    zeros = torch.randint(1, 1 << bits, (num_groups, OUTPUTS), generator=generator)
    scales = torch.rand(num_groups, OUTPUTS, generator=generator).half()
    group = torch.arange(INPUTS) // (INPUTS // num_groups)
    if is_ordered:
        group = group[torch.randperm(INPUTS, generator=generator)]
    stored_zeros = zeros - 1 if layout == "gptq" else zeros
    parts = {
        "qweight": pack_rows(codes.T, bits).T.contiguous(),
        "qzeros": pack_rows(stored_zeros, bits),
        "scales": scales,
        "g_idx": group.int(),
    }
    expected = (codes - zeros[group]) * scales.float()[group]
    found = make_reader({"bits": bits, "checkpoint_format": layout}).read(parts).dequantize()
    torch.testing.assert_close(found, expected.T, atol=1e-4, rtol=1e-5)


def test_a_zero_of_0_is_stored_with_a_borrow_from_the_whole_word():
    zeros = torch.tensor([[0, 3, 0, 15, 8, 0, 1, 2]])
    parts = {
        "qweight": torch.zeros(1, 8, dtype=torch.int32),
        "qzeros": pack_rows(zeros, 4) - 0x11111111,
        "scales": torch.ones(1, 8),
    }
    assert make_reader({"bits": 4}).read(parts).dequantize()[:, 0].tolist() == (-zeros[0]).tolist()


@pytest.mark.parametrize(
    ("settings", "message"), [({"checkpoint_format": "marlin"}, "'marlin' are not supported"), ({"bits": 3}, "of 3 bits")]
)
def test_other_layouts_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_reader(settings)
