"""FP8 with one scale, with one a row, and with one a block; the checkpoints are in the tests of loading."""

import pytest
import torch

from handlers.quant.readers.float8 import make_reader

WEIGHT = torch.arange(-20, 20).view(4, 10).to(torch.float8_e4m3fn)
ROWS = torch.tensor([0.5, 1, 2, 4])


@pytest.mark.parametrize(
    ("scales", "each"),
    [
        (torch.tensor(0.5), torch.full((4, 10), 0.5)),
        (ROWS, ROWS[:, None].expand(4, 10)),
        (ROWS[:, None], ROWS[:, None].expand(4, 10)),
        (
            torch.tensor([[1.0, 2, 4], [8, 16, 32]]),
            torch.tensor([[1.0] * 4 + [2] * 4 + [4] * 2, [8.0] * 4 + [16] * 4 + [32] * 2])[[0, 0, 0, 1]],
        ),
    ],
)
@pytest.mark.parametrize("name", ["weight_scale", "weight_scale_inv"])
def test_scales_reach_their_values(scales, each, name):
    found = make_reader({"weight_block_size": [3, 4]}).read({"weight": WEIGHT, name: scales})
    assert torch.equal(found.dequantize(), WEIGHT.float() * each)
