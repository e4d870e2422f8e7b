"""Against torchao's own dequantization."""

import importlib

import pytest
import torch
from torch import nn

from handlers.errors import ConfigError
from handlers.quant.readers.torchao import make_reader

CONFIGS = {
    "int8": lambda torchao: torchao.Int8WeightOnlyConfig(version=2),
    "int8 activations": lambda torchao: torchao.Int8DynamicActivationInt8WeightConfig(version=2),
    "int4": lambda torchao: torchao.IntxWeightOnlyConfig(torch.int4, torchao.PerGroup(32)),
    "int4 asymmetric": lambda torchao: torchao.IntxWeightOnlyConfig(torch.int4, torchao.PerGroup(32), torchao.MappingType.ASYMMETRIC),
    "FP8": lambda torchao: torchao.Float8WeightOnlyConfig(granularity=torchao.PerRow()),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_weight_is_torchaos(name):
    torchao = importlib.import_module("torchao.quantization")
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    model = nn.Sequential(nn.Linear(96, 16, bias=False))
    torchao.quantize_(model, CONFIGS[name](torchao))
    weight = model[0].weight.detach()
    tensors, _ = flatten_tensor_state_dict({"0.weight": weight})
    matrix = make_reader({}).read({stored.removeprefix("0."): tensor for stored, tensor in tensors.items()})
    torch.testing.assert_close(matrix.dequantize(), weight.dequantize().float(), atol=1e-6, rtol=1e-5)
    assert (matrix.table is not None) == name.startswith("int4")


def test_tensors_packed_for_an_accelerator_are_refused():
    parts = {
        "_weight_qdata": torch.zeros(8, 4, dtype=torch.int8),
        "_weight_scale": torch.ones(2, 8),
        "_weight_zero_point": torch.ones(2, 8),
    }
    with pytest.raises(ConfigError, match="packed for an accelerator"):
        make_reader({}).read(parts)
