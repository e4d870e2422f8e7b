"""Block formats: codes, scales and minima say exactly what the reference implementation dequantizes."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.gguf_file import BLOCK_TYPES
from handlers.weights.gguf import blocks

FORMATS = {name: (elements, size) for name, elements, size in BLOCK_TYPES.values() if blocks.can_unpack(name)}
# Where a block's float16 numbers stand: random bytes there would be infinities, too.
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "MXFP4": ()}


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), outputs=st.integers(1, 3), num_blocks=st.integers(1, 3))
def test_a_format_says_what_the_reference_says(name: str, seed: int, outputs: int, num_blocks: int) -> None:
    elements, size = FORMATS[name]
    rng = np.random.default_rng(seed)
    packed = rng.integers(0, 256, (outputs * num_blocks, size), dtype=np.uint8)
    for offset in HALVES.get(name, (0,)):
        packed[:, offset : offset + 2] = rng.normal(size=(len(packed), 1)).astype(np.float16).view(np.uint8)
    data = packed.reshape(outputs, -1)

    matrix = blocks.unpack(name, torch.from_numpy(data))

    assert matrix.codes.shape == (outputs, num_blocks * elements)
    expected = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
    np.testing.assert_array_equal(matrix.dequantize().numpy(), expected)


def test_the_sizes_of_blocks_are_the_reference_s() -> None:
    for number, (name, elements, size) in BLOCK_TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (name, (elements, size))
