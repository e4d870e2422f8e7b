"""Which way weights are loaded, on machines of every kind, and what is refused before anything is read."""

from __future__ import annotations

import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import handlers
from handlers.config import EngineConfig, HandlerConfig, ModelConfig, QuantizationConfig, parse_handler_config
from handlers.errors import ConfigError
from handlers.hooks import HandlerHooks
from handlers.native.packed_linear import PackedLinear, can_pack
from handlers.quant.machine import Gpu, Machine
from handlers.torchserve import TorchServeHandler
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.loading import choose_loader, weights_name
from tests.checkpoints import make_checkpoint
from tests.quantized_checkpoints import declare, make_compressed_tensors, rewrite_layers

CPU = Machine()
GPU = Machine(
    (Gpu("H100", (9, 0), 80 << 30),), {"bitsandbytes": "1", "torchao": "1", "compressed-tensors": "1", "optimum": "1", "gptqmodel": "1"}
)
TWO_GPUS = Machine(GPU.gpus * 2, GPU.packages)


def compressed_fp8(strategy: str) -> dict[str, Any]:
    """Return what compressed-tensors says of FP8 weights."""
    weights = {"type": "float", "num_bits": 8, "strategy": strategy}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": {"weights": weights}}}


QUANTIZATIONS: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "bits": 4},
    "mxfp4": {"quant_method": "mxfp4"},
    "fp8 rows": compressed_fp8("channel"),
    "fp8 blocks": compressed_fp8("block"),
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},  # early bitsandbytes does not name itself
}


@pytest.fixture
def open_checkpoint(tmp_path: Path) -> Any:
    """Return a function that makes a checkpoint directory without weights to speak of, plain or quantized, and opens it."""

    def make(kind: str = "plain") -> Checkpoint:
        config = {"architectures": ["LlamaForCausalLM"]} | ({"quantization_config": QUANTIZATIONS[kind]} if kind != "plain" else {})
        (tmp_path / "config.json").write_text(json.dumps(config))
        (tmp_path / "model.safetensors").touch()
        return Checkpoint.open(tmp_path, ModelConfig())

    return make


def with_recipe(recipe: Any) -> HandlerConfig:
    return HandlerConfig(quantization=QuantizationConfig(recipe))


def test_llama_cpp_is_refused_for_anything_but_gguf_before_weights_are_read(open_checkpoint):
    config = HandlerConfig(engine=EngineConfig(name="llamacpp"))
    with pytest.raises(ConfigError, match=r"llamacpp, which runs GGUF files.*gguf:Q8_0"):
        choose_loader(open_checkpoint(), config, CPU)


@pytest.mark.parametrize(
    ("kind", "recipe", "machine", "loader"),
    [
        ("plain", "none", CPU, None),
        ("plain", "none", GPU, None),
        ("plain", "nf4", CPU, "load_quantizing"),
        ("plain", "nf4", GPU, "load_making"),
        ("gptq", "none", CPU, "load_quantized"),
        ("gptq", "none", GPU, "load_stored"),
        ("nf4", "none", CPU, "load_quantized"),
        ("plain", "fp8", GPU, "load_quantizing"),
        ("plain", "fp8", TWO_GPUS, "load_making"),
        ("fp8 rows", "none", CPU, "load_quantized"),
        ("fp8 rows", "none", GPU, "load_quantized"),
        ("fp8 rows", "none", TWO_GPUS, "load_stored"),
        ("fp8 blocks", "none", GPU, "load_stored"),
    ],
)
def test_weights_and_machine_decide_who_loads(open_checkpoint: Any, kind: str, recipe: str, machine: Machine, loader: str | None) -> None:
    load = choose_loader(open_checkpoint(kind), with_recipe(recipe), machine)
    assert (load.func.__name__ if isinstance(load, partial) else load) == loader
    if loader in ("load_quantized", "load_quantizing"):
        assert isinstance(load, partial)
        assert load.args[-1] == torch.device(machine.device)


def test_a_recipe_for_what_is_quantized_already_is_refused(open_checkpoint: Any) -> None:
    with pytest.raises(ConfigError, match=r"recipe is int8, but the checkpoint's weights are GPTQ already: set none"):
        choose_loader(open_checkpoint("gptq"), with_recipe("int8"), CPU)


def test_what_a_machine_cannot_run_is_refused_before_it_is_read(open_checkpoint: Any) -> None:
    with pytest.raises(ConfigError, match="weights are mxfp4, which needs a CUDA GPU"):
        choose_loader(open_checkpoint("mxfp4"), HandlerConfig(), CPU)


def test_weights_are_named_after_format_and_recipe(open_checkpoint: Any) -> None:
    assert weights_name(open_checkpoint("plain"), HandlerConfig()) == "plain"
    assert weights_name(open_checkpoint("plain"), with_recipe("fp8")) == "plain, fp8 at load"
    assert weights_name(open_checkpoint("nf4"), HandlerConfig()) == "bitsandbytes NF4"


def handler_of(base: type[HandlerHooks], directory: Path, recipe: str = "none") -> Any:
    """Return a handler as an engine process makes it, without ``initialize``."""
    handler: Any = base()
    handler.model_dir, handler.model_name, handler.model_version = directory.parent, "m", "1.0"
    handler.config = parse_handler_config({"handler": {"model": {"path": directory.name}, "quantization": {"recipe": recipe}}})
    return handler


@pytest.mark.parametrize("base", [handlers.CausalLMHandler, handlers.BatchedCausalLMHandler])
def test_both_handlers_load_quantized_checkpoints(base: type[HandlerHooks], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    model = handler_of(base, make_compressed_tensors(tmp_path / "model")).load_model()
    assert any(isinstance(module, PackedLinear) for module in model.modules()) == can_pack(torch.device("cpu"))
    assert "weights: compressed-tensors W4A16" in caplog.messages


def test_fbgemms_checkpoints_are_read(tmp_path: Path) -> None:
    """Which no library runs without a GPU: E4M3 with a scale for each row, against the plain weights that it was made from."""

    def compress(layer: str, weight: Tensor) -> dict[str, Tensor]:
        scales = weight.float().abs().amax(1, keepdim=True) / 448
        return {"weight": (weight / scales).to(torch.float8_e4m3fn), "weight_scale": scales}

    plain = make_checkpoint(tmp_path / "plain", hidden_size=64, dtype="bfloat16")
    rewrite_layers(make_checkpoint(tmp_path / "stored", hidden_size=64, dtype="bfloat16"), compress)
    declare(tmp_path / "stored", {"quant_method": "fbgemm_fp8"})
    checkpoint = Checkpoint.open(tmp_path / "stored", ModelConfig())
    load = choose_loader(checkpoint, HandlerConfig(), CPU)
    assert load is not None
    for (name, found), (_, expected) in zip(
        load().named_modules(), Checkpoint.open(plain, ModelConfig()).load().named_modules(), strict=True
    ):
        if name.endswith("_proj"):
            weight = found.dequantize() if isinstance(found, PackedLinear) else found.weight.float()
            assert (weight - expected.weight.float()).norm() < 0.04 * expected.weight.float().norm(), name


class PlainHandler(handlers.CheckpointMixin, TorchServeHandler):
    """An author's own composition, without quantization in mind."""


@pytest.mark.parametrize(("kind", "recipe", "name"), [("gptq", "none", "GPTQ"), ("plain", "nf4", "plain, nf4 at load")])
def test_a_handler_without_the_mixin_names_it(open_checkpoint: Any, kind: str, recipe: str, name: str) -> None:
    handler = handler_of(PlainHandler, open_checkpoint(kind).directory, recipe)
    with pytest.raises(
        ConfigError, match=f"PlainHandler loads plain weights only, not {name}: put QuantizedLoadMixin before CheckpointMixin"
    ):
        handler.load_model()
