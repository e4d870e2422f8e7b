"""What compressed-tensors writes today is in the tests of loading; here is what it wrote, and what cannot be read."""

import pytest
import torch

from handlers.errors import ConfigError
from handlers.quant.readers.compressed_tensors import make_reader


def packed(codes):
    from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

    return {"weight_packed": pack_to_int32(codes, 4), "weight_shape": torch.tensor(codes.shape)}


def test_activation_order_of_early_versions():
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-8, 8, (6, 32), generator=generator, dtype=torch.int8)
    scales = torch.rand(6, 4, generator=generator)
    group = (torch.arange(32) // 8)[torch.randperm(32, generator=generator)]
    parts = packed(codes) | {"weight_scale": scales, "weight_g_idx": group.int()}
    assert torch.equal(make_reader({}).read(parts).dequantize(), codes * scales[:, group])


def test_one_scale_for_a_whole_weight():
    weight = torch.randn(4, 8).to(torch.float8_e4m3fn)
    found = make_reader({"format": "naive-quantized"}).read({"weight": weight, "weight_scale": torch.tensor(0.5)})
    assert torch.equal(found.dequantize(), weight.float() * 0.5)


def test_plain_int8_with_zeros():
    codes = torch.randint(-128, 128, (4, 8), dtype=torch.int8)
    parts = {
        "weight": codes,
        "weight_scale": torch.full((4, 1), 0.25),
        "weight_zero_point": torch.tensor([[3], [-7], [0], [127]]).to(torch.int8),
    }
    expected = (codes.float() - parts["weight_zero_point"]) * 0.25
    assert torch.equal(make_reader({"format": "int-quantized"}).read(parts).dequantize(), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "nvfp4-pack-quantized"}, "'nvfp4-pack-quantized' are not supported"),
        ({"format": "mixed-precision", "config_groups": {"a": {"format": "marlin-24"}}}, "'marlin-24' are not supported"),
        ({"transform_config": {"config_groups": {"R1": {}}}}, "rotations"),
        ({"sparsity_config": {"format": "sparse-24-bitmask"}}, "without pruning"),
    ],
)
def test_what_cannot_be_read_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_reader(settings)
