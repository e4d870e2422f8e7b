"""Our loader against the libraries': the same weights, the same logits, and an engine that generates with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, CompressedTensorsConfig, PreTrainedModel

from handlers.config import EngineConfig, ModelConfig
from handlers.engine.build import build_engine_client
from handlers.errors import ConfigError
from handlers.native.packed_linear import PackedLinear, can_pack
from handlers.requests import SamplingParams
from handlers.weights.checkpoint import Checkpoint
from handlers.weights.quantized import load_quantized
from tests.checkpoints import make_checkpoint
from tests.quantized_checkpoints import (
    SHAPE,
    declare,
    make_bitsandbytes,
    make_compressed_tensors,
    make_fine_grained_fp8,
    make_torchao,
    shard,
)

TOKENS = torch.arange(3, 40)[None]
ROUNDING = 0.05
"""Relative error of logits in bfloat16, whose products are summed in another order."""
ROUNDED_ACTIVATIONS = 0.1
"""The same where the library rounds activations to 8 bits, too."""
GPTQMODEL = Path(__file__).parents[2] / "fixtures" / "gptqmodel"


def load(directory: Path, dtype: str = "bfloat16") -> PreTrainedModel:
    return load_quantized(Checkpoint.open(directory, ModelConfig(dtype=dtype)))


def reference(directory: Path, *, is_dense: bool = False) -> PreTrainedModel:
    """The model as its library loads it; ``is_dense`` lets compressed-tensors decompress it, which for asymmetric weights it must."""
    options = {"quantization_config": CompressedTensorsConfig(run_compressed=False)} if is_dense else {}
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.bfloat16, local_files_only=True, **options).eval()


@torch.inference_mode()
def weight_of(layer: nn.Module) -> Tensor:
    """A layer's weight, seen from outside: ``(outputs, inputs)``."""
    identity = torch.eye(layer.in_features, dtype=torch.bfloat16)
    return (layer(identity) - layer(torch.zeros_like(identity))).T.float()


@torch.inference_mode()
def logits(model: PreTrainedModel) -> Tensor:
    return model(TOKENS).logits[0].float()


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def assert_same_weights(ours: PreTrainedModel, theirs: PreTrainedModel) -> None:
    layers = [name for name, _ in ours.named_modules() if name.endswith("_proj")]
    assert len(layers) == 14
    for name in layers:
        torch.testing.assert_close(weight_of(ours.get_submodule(name)), weight_of(theirs.get_submodule(name)), atol=1e-3, rtol=2**-7)


def alter(directory: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


CASES: dict[str, tuple[Callable[..., Path], dict[str, object], float]] = {
    "int4": (make_compressed_tensors, {"scheme": "W4A16"}, ROUNDING),
    "int4 asymmetric (AWQ)": (make_compressed_tensors, {"scheme": "W4A16_ASYM"}, ROUNDING),
    "int8": (make_compressed_tensors, {"scheme": "W8A16"}, ROUNDING),
    "int3": (make_compressed_tensors, {"scheme": "W3A16"}, ROUNDING),
    "int8 with int8 activations": (make_compressed_tensors, {"scheme": "W8A8"}, ROUNDING),
    "FP8": (make_compressed_tensors, {"scheme": "FP8_DYNAMIC"}, ROUNDING),
    "FP8 blocks": (make_compressed_tensors, {"scheme": "FP8_BLOCK"}, ROUNDING),
    "NF4": (make_bitsandbytes, {"nested": False}, ROUNDING),
    "NF4 with quantized scales": (make_bitsandbytes, {"nested": True}, ROUNDING),
    "FP4": (make_bitsandbytes, {"kind": "fp4"}, ROUNDING),
    "bitsandbytes int8": (make_bitsandbytes, {"bits": 8}, ROUNDED_ACTIVATIONS),
    "torchao int8": (make_torchao, {}, ROUNDING),
}


@pytest.mark.parametrize("case", CASES)
def test_weights_and_logits_are_the_librarys(tmp_path, case):
    make, options, tolerance = CASES[case]
    directory = make(tmp_path / "model", **options)
    ours, theirs = load(directory), reference(directory, is_dense=make is make_compressed_tensors)
    assert_same_weights(ours, theirs)
    assert relative_error(logits(ours), logits(theirs)) < tolerance
    assert any(isinstance(module, PackedLinear) for module in ours.modules()) == can_pack(torch.device("cpu"))


@pytest.mark.parametrize("name", ["gptq-order", "gptq-int8", "awq"])
def test_checkpoints_of_gptqmodel(name):
    """Against what gptqmodel computed when it wrote them."""
    expected = load_file(GPTQMODEL / f"{name}.reference.safetensors")
    model = load(GPTQMODEL / name)
    weight = weight_of(model.model.layers[0].mlp.down_proj)
    torch.testing.assert_close(weight, expected["down_proj"].float(), atol=1e-3, rtol=2**-7)
    assert relative_error(logits(model)[:8], expected["logits"].float()) < ROUNDING


def test_fine_grained_fp8(tmp_path):
    """transformers runs it on GPUs only: against the plain model, from which 3 bits after the point differ by a sixteenth at most."""
    plain = reference(make_checkpoint(tmp_path / "plain", **SHAPE, dtype="bfloat16"))
    ours = load(make_fine_grained_fp8(tmp_path / "fp8"))
    for name in ("model.layers.0.mlp.down_proj", "model.layers.1.self_attn.k_proj"):
        found, expected = weight_of(ours.get_submodule(name)), weight_of(plain.get_submodule(name))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1.01 / 16)


def test_layers_of_several_schemes(tmp_path):
    """Where each is its own oracle: transformers 5.23 takes one scheme for all."""
    single = {scheme: load(make_compressed_tensors(tmp_path / scheme, scheme=scheme)) for scheme in ("W4A16", "W8A16", "FP8_DYNAMIC")}
    by_layer = {"down_proj": "W8A16", "o_proj": "FP8_DYNAMIC"}
    mixed = load(make_compressed_tensors(tmp_path / "mixed", by_layer=by_layer))
    for end, scheme in {"q_proj": "W4A16", "up_proj": "W4A16", **by_layer}.items():
        (name,) = (name for name, _ in mixed.named_modules() if name.endswith(f"0.self_attn.{end}") or name.endswith(f"0.mlp.{end}"))
        assert torch.equal(weight_of(mixed.get_submodule(name)), weight_of(single[scheme].get_submodule(name)))


@pytest.mark.parametrize("is_tied", [True, False])
def test_shards_biases_and_tied_embeddings(tmp_path, is_tied):
    directory = make_compressed_tensors(tmp_path / "model", tie_word_embeddings=is_tied, attention_bias=True)

    def set_biases(tensors: dict[str, Tensor]) -> None:
        for name in tensors:
            if name.endswith(".bias"):
                tensors[name] = torch.linspace(-2, 2, len(tensors[name]), dtype=torch.bfloat16)

    alter(directory, set_biases)
    expected = logits(load(directory))
    assert relative_error(expected, logits(reference(directory))) < ROUNDING
    shard(directory)
    (directory / "consolidated.safetensors").write_bytes(b"of another program, and not in the index")
    model = load(directory)
    assert torch.equal(logits(model), expected)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == is_tied


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_continuous_engine_runs_it(tmp_path, one_thread, dtype):
    directory = make_compressed_tensors(tmp_path / "model", scheme="W4A16_ASYM")
    model, prompt = load(directory, str(dtype).removeprefix("torch.")), TOKENS[:, :9]
    expected = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None)[0, 9:].tolist()
    assert model.dtype == dtype
    config = EngineConfig(name="continuous", max_running=2, max_waiting=2, kv_memory_gib=0.01)
    client = build_engine_client(model, config, eos_token_ids=frozenset())
    try:
        client.add("a", prompt[0].tolist(), SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True))
        found: list[int] = []
        while len(found) < 12:
            found += [token_id for event in client.poll(10) for token_id in event.token_ids]
    finally:
        client.close()
    assert found == expected


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_no_file_stays_mapped(tmp_path):
    """It would count as memory, and a new version could not be put in its place."""
    directory = make_compressed_tensors(tmp_path / "model", scheme="FP8_DYNAMIC")
    model = load(directory)
    assert str(directory) not in Path("/proc/self/maps").read_text()
    assert logits(model).isfinite().all()


def test_the_authors_generation_config_is_kept(tmp_path):
    model = load(make_compressed_tensors(tmp_path / "model"))
    assert model.generation_config.eos_token_id == 1
    assert model.generation_config.pad_token_id == 0


def test_biases_of_zeros_for_layers_without_one_are_left_out(tmp_path):
    """AutoGPTQ wrote them."""
    directory = make_compressed_tensors(tmp_path / "model")
    name = "model.layers.0.mlp.up_proj.bias"
    alter(directory, lambda tensors: tensors.update({name: torch.zeros(128)}))
    load(directory)
    alter(directory, lambda tensors: tensors.update({name: torch.ones(128)}))
    with pytest.raises(ConfigError, match=r"no place for, model.layers.0.mlp.up_proj.bias"):
        load(directory)


def drop(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__delitem__(name)


def crop(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.update({name: tensors[name][:-1].clone()})


UP = "model.layers.1.mlp.up_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop(f"{UP}.weight_shape"), rf"no {UP}.weight_shape"),
        (drop("model.norm.weight"), r"lack 1 tensors of LlamaForCausalLM, model.norm.weight"),
        (drop("model.embed_tokens.weight"), r"lack 2 tensors .* lm_head.weight"),
        (crop(f"{UP}.weight_scale"), rf"{UP}.weight: "),
        (crop(f"{UP}.weight_packed"), rf"{UP}.weight: "),
        (crop("model.norm.weight"), r"model.norm.weight has the shape \(63,\), and the model wants \(64,\)"),
        (lambda tensors: tensors.update({"model.new.weight": torch.ones(1)}), "no place for, model.new.weight"),
        (lambda tensors: tensors.update({"model.layers.0.mlp.experts.0.w1.weight": torch.ones(1)}), "mixtures of experts"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path, change, message):
    directory = make_compressed_tensors(tmp_path / "model")
    alter(directory, change)
    with pytest.raises(ConfigError, match=message) as refusal:
        load(directory)
    assert "\n" not in str(refusal.value)


def test_a_truncated_file_and_a_broken_index_are_refused(tmp_path):
    directory = make_compressed_tensors(tmp_path / "model")
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"cannot read model/model.safetensors: .*; copy or download it again"):
        load(directory)
    (directory / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ConfigError, match="is no index of tensors"):
        load(directory)


def test_what_has_no_reader_is_refused(tmp_path):
    directory = make_compressed_tensors(tmp_path / "model")
    declare(directory, {"quant_method": "hqq"})
    with pytest.raises(ConfigError, match="quantized with 'hqq' cannot be read here; use one of awq, "):
        load(directory)
    config = directory / "config.json"
    content = json.loads(config.read_text())
    del content["quantization_config"]
    config.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="is not quantized"):
        load(directory)
