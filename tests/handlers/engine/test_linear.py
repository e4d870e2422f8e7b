"""Linear layers as functions: fused, packed, or called as they are."""

import gc
import weakref

import pytest
import torch
from torch import nn

from handlers.engine.linear import beside


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("rows", [1, 5, 40])
def test_modules_side_by_side_say_what_each_says(dtype, has_bias, rows):
    torch.manual_seed(0)
    modules = [nn.Linear(48, width, bias=has_bias, dtype=dtype) for width in (32, 16, 16)]
    inputs = torch.randn(rows, 48, dtype=dtype)
    with torch.inference_mode():
        expected = torch.cat([module(inputs) for module in modules], dim=-1)
        torch.testing.assert_close(beside(modules)(inputs), expected)


class Doubled(nn.Linear):
    """As a quantized module is: a linear layer, but its weight is not the whole truth."""

    def forward(self, inputs):
        return 2 * super().forward(inputs)


def test_a_module_of_another_kind_is_called():
    inputs = torch.randn(3, 8)
    plain, other = nn.Linear(8, 4), Doubled(8, 4)
    with torch.inference_mode():
        torch.testing.assert_close(beside([other])(inputs), other(inputs))
        torch.testing.assert_close(beside([plain, other])(inputs), torch.cat([plain(inputs), other(inputs)], dim=-1))


def test_fused_weights_are_not_kept_twice_and_outlive_their_modules():
    modules = [nn.Linear(8, 4) for _ in range(3)]
    before = [module.weight.clone() for module in modules]
    function = beside(modules)
    assert all(torch.equal(module.weight, weight) for module, weight in zip(modules, before, strict=True))
    assert len({module.weight.untyped_storage().data_ptr() for module in modules}) == 1
    gone = weakref.ref(modules[0])
    modules.clear()
    gc.collect()
    assert gone() is None
    assert function(torch.zeros(1, 8)).shape == (1, 12)
