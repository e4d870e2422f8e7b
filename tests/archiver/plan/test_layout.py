"""Which ways there are to divide a model, and which of them its sizes forbid."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver.plan.layout import Layout, indivisible, layouts
from tests.archiver.plan.shapes import LLAMA_8B, LLAMA_70B, decoder


@given(st.integers(1, 96))
def test_every_way_uses_all_devices_and_none_comes_twice(num_gpus):
    found = list(layouts(num_gpus))
    assert {layout.num_gpus for layout in found} == {num_gpus}
    assert len(set(found)) == len(found)
    divisors = [number for number in range(1, num_gpus + 1) if num_gpus % number == 0]
    pairs = {(tensor, pipeline) for tensor in divisors for pipeline in divisors if num_gpus % (tensor * pipeline) == 0}
    assert {(layout.tensor, layout.pipeline) for layout in found} == pairs


def test_the_least_divided_way_comes_first_and_tensor_before_pipeline():
    order = [(layout.tensor, layout.pipeline) for layout in layouts(4)]
    assert order == [(1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4)]


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        (Layout(tensor=2), None),
        (Layout(tensor=8), None),
        (Layout(tensor=16), None),  # 8 KV heads on 16 ranks: each is held twice
        (Layout(tensor=3), "3 does not divide 32 attention heads"),
        (Layout(tensor=32), None),
        (Layout(pipeline=32), None),
        (Layout(pipeline=33), "33 stages for 32 layers"),
    ],
)
def test_heads_and_layers_must_be_whole(layout, reason):
    assert indivisible(LLAMA_8B, layout) == reason


def test_ranks_beyond_the_kv_heads_must_divide_evenly_among_them():
    model = decoder(heads=24, kv_heads=6, head_dim=128, intermediate=12288)
    assert indivisible(model, Layout(tensor=12)) is None
    assert indivisible(model, Layout(tensor=4)) == "4 does not divide 6 KV heads, nor they it"


def test_a_shard_holds_whole_groups_of_quantized_columns():
    quantized = replace(LLAMA_70B, group_size=128)
    assert indivisible(quantized, Layout(tensor=8)) is None  # 28672 / 8 = 28 * 128, and 8192 / 8 = 8 * 128
    odd = replace(decoder(intermediate=11008 + 128), group_size=128)  # 11136 = 87 * 128
    assert "87" not in (indivisible(odd, Layout(tensor=1)) or "")
    assert indivisible(odd, Layout(tensor=2)) == "11136 input columns of the MLP / 2 are no whole number of quantization groups of 128"


def test_columns_of_the_mlp_must_be_whole():
    assert indivisible(decoder(intermediate=14340), Layout(tensor=8)) == "8 does not divide 14340 columns of the MLP"
