"""Weights are counted as they lie in memory, and the engine tells."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch
from tiny_models import CONFIGS, make_model
from torch import nn

from handlers.config import EngineConfig
from handlers.engine.build import build_engine_client
from handlers.engine.client import EngineStats
from handlers.engine.control import describe_engine
from handlers.engine.process.statistics import add_up, totals
from handlers.engine.weight_memory import plain_bytes, weight_bytes
from handlers.native.packed_linear import PackedLinear
from handlers.native.quantized_matrix import QuantizedMatrix

OUTPUTS, INPUTS = 64, 128
PLAIN = OUTPUTS * INPUTS * 4


class Model(nn.Module):
    """One linear layer in float32, and what a test hangs on."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.linear: nn.Module = nn.Linear(INPUTS, OUTPUTS, bias=False)


def test_plain_tensors_count_as_they_are_and_shared_ones_once() -> None:
    model = Model()
    model.register_buffer("table", torch.zeros(10, dtype=torch.bfloat16))
    model.tied = model.linear
    model.same_memory = nn.Parameter(model.linear.weight.data)
    assert weight_bytes(model) == PLAIN + 20


def test_views_into_one_fused_weight_count_as_the_whole() -> None:
    model = Model()
    fused = torch.zeros(3, 5)
    model.first, model.second = nn.Parameter(fused[:1]), nn.Parameter(fused[1:])
    assert weight_bytes(model) == PLAIN + fused.nbytes


def test_packed_layers_say_what_they_take() -> None:
    model = Model()
    codes, scales = torch.zeros(OUTPUTS, INPUTS, dtype=torch.int8), torch.ones(OUTPUTS, 1)
    model.linear = PackedLinear(QuantizedMatrix(codes, scales), torch.zeros(OUTPUTS))
    assert codes.nbytes + scales.nbytes // 2 <= weight_bytes(model) - OUTPUTS * 4 < PLAIN / 3
    assert plain_bytes(model) == PLAIN + OUTPUTS * 4


def test_the_tensors_inside_of_torchaos_are_what_counts() -> None:
    quantization = importlib.import_module("torchao.quantization")
    model = Model()
    quantization.quantize_(model, quantization.Int8WeightOnlyConfig(version=2))
    assert OUTPUTS * INPUTS < weight_bytes(model) <= OUTPUTS * INPUTS + 8 * OUTPUTS
    assert plain_bytes(model) == PLAIN


def test_the_scales_of_bitsandbytes_count_too() -> None:
    bitsandbytes = importlib.import_module("bitsandbytes")
    model = Model()
    model.linear = bitsandbytes.nn.Linear4bit(INPUTS, OUTPUTS, bias=False, compress_statistics=False, quant_type="nf4").to("cpu")
    num_scales = OUTPUTS * INPUTS // 64
    assert weight_bytes(model) == OUTPUTS * INPUTS // 2 + num_scales * 4 + 16 * 4  # codes, scales, and the 16 values
    assert plain_bytes(model) == PLAIN


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["continuous", "generate"])
def test_every_engine_tells(name: str, dtype: torch.dtype) -> None:
    model = make_model(CONFIGS["llama"], dtype)
    expected = weight_bytes(model)
    client = build_engine_client(model, EngineConfig(name=name, kv_memory_gib=0.01), eos_token_ids=frozenset())
    try:
        assert client.stats().weight_bytes == pytest.approx(expected, rel=0.1)  # rotary tables, padding
        assert describe_engine(client)["weight_bytes"] == client.stats().weight_bytes
    finally:
        client.close()


def test_replicas_add_up_and_an_engine_that_has_ended_has_no_weights() -> None:
    engine = EngineStats(
        engines=1, max_running=4, weight_bytes=5, kv_bytes=4, activation_bytes=3, context_bytes=2, graph_bytes=1, out_of_memory=2
    )
    both = add_up([engine, engine])
    assert (both.engines, both.max_running, both.weight_bytes, both.kv_bytes, both.out_of_memory) == (2, 8, 10, 8, 4)
    assert totals(replace(engine, steps=3)) == EngineStats(steps=3, out_of_memory=2)
