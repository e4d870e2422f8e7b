"""What weights take: headers and configuration agree, for every family and every format that is written here."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import load_file as load_torch_file
from safetensors.torch import save_file as save_torch_file

from archiver.plan.model.computed import compute_facts
from archiver.plan.model.facts import ModelFacts, Role
from archiver.plan.model.settings import Settings
from archiver.plan.model.source import read_model
from archiver.plan.model.storage import requantize, with_dtype
from handlers.quant import formats
from handlers.quant.formats import FORMATS, Format
from tests.archiver.plan.model.oracle import build
from tests.archiver.plan.model.test_public_models import MODELS, SHRUNKEN
from tests.checkpoints import make_checkpoint
from tests.quantized_checkpoints import make_bitsandbytes, make_compressed_tensors, make_fine_grained_fp8, make_torchao


def make_mxfp4(directory: Path) -> Path:
    """Write a tiny gpt-oss as it is published: of each expert's matrices codes, 32 in 16 bytes, and a scale for them."""
    config = SHRUNKEN["gpt-oss-20b"] | {"hidden_size": 64, "intermediate_size": 64, "quantization_config": {"quant_method": "mxfp4"}}
    build(config, dtype=torch.bfloat16).save_pretrained(directory)
    (directory / "config.json").write_text(json.dumps(config))
    file = directory / "model.safetensors"
    tensors = load_torch_file(file)
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        tensors[f"{name}_blocks"] = torch.zeros(experts, outputs, inputs // 32, 16, dtype=torch.uint8)
        tensors[f"{name}_scales"] = torch.zeros(experts, outputs, inputs // 32, dtype=torch.uint8)
    save_torch_file(tensors, file)
    return directory


FAMILIES = {config["model_type"]: name for name, config in SHRUNKEN.items()}
GPTQMODEL = Path(__file__).parents[3] / "fixtures" / "gptqmodel"
TO_THE_BYTE: dict[str, Callable[[Path], Path]] = {
    "awq": lambda _: GPTQMODEL / "awq",
    "gptq": lambda _: GPTQMODEL / "gptq-order",
    "gptq-int8": lambda _: GPTQMODEL / "gptq-int8",
    "fp8": make_fine_grained_fp8,
    "mxfp4": make_mxfp4,
    "torchao-int8": make_torchao,
    **{f"compressed-{scheme}": partial(make_compressed_tensors, scheme=scheme) for scheme in
       ("W4A16", "W4A16_ASYM", "W8A16", "W8A8", "FP8", "FP8_DYNAMIC", "FP8_BLOCK")},
}  # fmt: skip
NEARLY: dict[str, Callable[[Path], Path]] = {
    "nf4": partial(make_bitsandbytes, nested=False),
    "nf4-nested": make_bitsandbytes,
    "fp4": partial(make_bitsandbytes, kind="fp4"),
    "int8": partial(make_bitsandbytes, bits=8),
}
"""The state of each matrix is written out in words."""


def read_model_of(name: str) -> ModelFacts:
    return compute_facts(Settings(MODELS[name]["config"], "config.json"), name)


def exact_and_computed(directory: Path) -> tuple[ModelFacts, ModelFacts]:
    return read_model(directory), read_model(directory / "config.json")


@pytest.fixture(scope="module")
def llama_8b() -> ModelFacts:
    return read_model_of("llama-3.1-8b")


def test_llama_3_1_8b(llama_8b: ModelFacts) -> None:
    assert (llama_8b.num_elements, llama_8b.weight_bytes) == (8_030_261_248, 16_060_522_496)
    assert llama_8b.kv_bytes_per_token(2) * 8192 * 256 == 256 * 2**30
    assert llama_8b.num_active_elements == 8_030_261_248 - 128256 * 4096


@pytest.mark.parametrize("model_type", FAMILIES)
def test_headers_say_of_every_role_what_the_configuration_does(model_type: str, tmp_path: Path) -> None:
    build(SHRUNKEN[FAMILIES[model_type]], dtype=torch.bfloat16).save_pretrained(tmp_path)
    exact, computed = exact_and_computed(tmp_path)
    assert exact.is_exact and not computed.is_exact
    assert exact.weights == computed.weights
    assert exact.num_active_elements == computed.num_active_elements


@pytest.mark.parametrize("name", TO_THE_BYTE)
def test_a_quantized_checkpoint_to_the_byte(name: str, tmp_path: Path) -> None:
    exact, computed = exact_and_computed(TO_THE_BYTE[name](tmp_path / "model"))
    assert exact.format is computed.format is not formats.PLAIN
    assert exact.weights == computed.weights


@pytest.mark.parametrize("name", NEARLY)
def test_a_quantized_checkpoint_nearly(name: str, tmp_path: Path) -> None:
    exact, computed = exact_and_computed(NEARLY[name](tmp_path / "model"))
    assert exact.num_elements == computed.num_elements
    assert computed.weight_bytes == pytest.approx(exact.weight_bytes, rel=0.002)


def test_an_unused_tensor_and_a_layer_behind_the_last_do_not_count(tmp_path: Path) -> None:
    plain = read_model(make_checkpoint(tmp_path / "tiny"))
    file = tmp_path / "tiny" / "model.safetensors"
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.zeros(8, np.float32),
        "model.layers.2.mlp.up_proj.weight": np.zeros((8, 8), np.float32),
        "mtp.norm.weight": np.zeros(8, np.float32),
        "lm_head.weight": np.zeros((8, 8), np.float32),  # tied: written by some tools all the same
    }
    save_file(load_file(file) | extra, file)
    assert read_model(tmp_path / "tiny").weights == plain.weights


def test_plain_numbers_count_in_the_dtype_that_they_are_computed_in(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "tiny", dtype="float32")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    facts = read_model(checkpoint)
    assert facts.weight_bytes == 2 * facts.num_elements


@pytest.mark.parametrize(
    ("format", "gigabytes"),
    [(formats.AWQ, 5.73), (formats.GPTQ, 5.73), (formats.CT_FP8, 9.08), (formats.GGUF, 4.92), (formats.PLAIN, 16.06)],
)
def test_what_llama_8b_would_take(llama_8b: ModelFacts, format: Format, gigabytes: float) -> None:
    """The sizes of the published files."""
    assert requantize(llama_8b, format).weight_bytes / 1e9 == pytest.approx(gigabytes, abs=0.01)


@pytest.mark.parametrize("format", [format for format in FORMATS if not format.obstacle], ids=lambda format: format.name)
def test_requantized_is_what_would_be_written(llama_8b: ModelFacts, format: Format) -> None:
    there = requantize(llama_8b, format)
    assert there.num_elements == llama_8b.num_elements
    assert there.weight_bytes <= llama_8b.weight_bytes
    back = requantize(there, formats.PLAIN)
    assert (back.weights, back.group_size) == (llama_8b.weights, None)


@pytest.mark.parametrize("name", ["awq", "fp8", "compressed-W4A16", "compressed-FP8_DYNAMIC"])
def test_requantized_agrees_with_a_checkpoint_that_was_quantized(name: str, tmp_path: Path) -> None:
    exact = read_model(TO_THE_BYTE[name](tmp_path / "model"))
    requantized = requantize(requantize(exact, formats.PLAIN), exact.format, exact.group_size or 128)
    assert requantized.weight_bytes == pytest.approx(exact.weight_bytes, rel=0.02)


def test_only_experts_become_mxfp4() -> None:
    config = MODELS["gpt-oss-20b"]["config"] | {"quantization_config": {"quant_method": "mxfp4"}}
    facts = compute_facts(Settings(config, "config.json"), "gpt-oss-20b")
    assert facts.weight_bytes == pytest.approx(13.76e9, rel=0.001)  # the published files
    assert facts.role_bytes(Role.HEAD) == 201088 * 2880 * 2


def test_embeddings_that_are_the_head_multiply_and_those_of_layers_do_not() -> None:
    gemma = read_model_of("gemma-3n-e4b-text")
    embeddings = sum(group.num_elements for group in gemma.weights if group.role is Role.EMBEDDING)
    assert embeddings == 262400 * 2048 + 262144 * 35 * 256
    assert gemma.num_active_elements == gemma.num_elements - 262144 * 35 * 256


def test_another_dtype() -> None:
    float32 = read_model_of("gpt2")
    bfloat16 = with_dtype(float32, "bfloat16")
    assert (float32.dtype, bfloat16.dtype) == ("float32", "bfloat16")
    assert float32.weight_bytes == 2 * bfloat16.weight_bytes == 4 * float32.num_elements


def test_states_follow_the_dtype_and_quantized_matrices_do_not() -> None:
    mamba = read_model_of("mamba-2.8b")
    assert with_dtype(mamba, "float16").sequence_bytes(1, 2) == mamba.sequence_bytes(1, 2) / 2
    awq = requantize(read_model_of("llama-2-7b"), formats.AWQ)
    assert with_dtype(awq, "float32").role_bytes(Role.MLP) == awq.role_bytes(Role.MLP)
    assert with_dtype(awq, "float32").role_bytes(Role.HEAD) == 2 * awq.role_bytes(Role.HEAD)


@pytest.mark.parametrize(("name", "billions"), [("gpt-oss-20b", 3.61), ("gpt-oss-120b", 5.13)])
def test_active_parameters_are_the_published_ones(name: str, billions: float) -> None:
    assert read_model_of(name).num_active_elements / 1e9 == pytest.approx(billions, abs=0.005)


@pytest.mark.parametrize(
    ("name", "billions"), [("mixtral-8x7b", 12.9), ("qwen3-30b-a3b", 3.3), ("llama-4-scout", 17), ("jamba-v0.1", 12), ("deepseek-v3", 37)]
)
def test_and_where_embeddings_are_counted_too(name: str, billions: float) -> None:
    facts = read_model_of(name)
    embeddings = sum(group.num_elements for group in facts.weights if group.role is Role.EMBEDDING)
    assert (facts.num_active_elements + embeddings) / 1e9 == pytest.approx(billions, rel=0.02)
