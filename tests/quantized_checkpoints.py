"""Make small quantized checkpoints, each with the library that its format belongs to, by rounding to nearest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.checkpoints import make_checkpoint

SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
GROUP_SIZE = 32


def make_compressed_tensors(directory: Path, *, scheme: str = "W4A16", by_layer: Mapping[str, str] | None = None, **options: Any) -> Path:
    """Write a checkpoint as llmcompressor does; ``by_layer`` gives layers whose names end so another scheme.

    Groups have 32 inputs and blocks 32 by 32 values, where the scheme has any. ``options`` are make_checkpoint's.
    """
    from compressed_tensors.quantization import QuantizationConfig

    make_checkpoint(directory, **SHAPE | {"dtype": "bfloat16"} | options)
    schemes = {ending: _scheme(other, [f"re:.*{ending}$"]) for ending, other in (by_layer or {}).items()}
    rest = _scheme(scheme, [f"re:^(?!.*({'|'.join(schemes)})$).*_proj$" if schemes else "Linear"])

    def compress(layer: str, weight: Tensor) -> dict[str, Tensor]:
        return _compress(weight, next((schemes[ending] for ending in schemes if layer.endswith(ending)), rest))

    rewrite_layers(directory, compress)
    groups = {f"group_{index}": scheme for index, scheme in enumerate([rest, *schemes.values()])}
    formats = {scheme.format for scheme in groups.values()}
    config = QuantizationConfig(
        config_groups=groups,
        format=formats.pop() if len(formats) == 1 else "mixed-precision",
        quantization_status="compressed",
        ignore=["lm_head"],
    )
    declare(directory, config.model_dump(mode="json"))
    return directory


def make_bitsandbytes(directory: Path, *, bits: int = 4, kind: str = "nf4", nested: bool = True, **options: Any) -> Path:
    """Write a checkpoint with bitsandbytes; ``nested`` quantizes the scales, too."""
    from transformers import BitsAndBytesConfig

    four_bits = {"load_in_4bit": True, "bnb_4bit_quant_type": kind, "bnb_4bit_use_double_quant": nested}
    return _make_with_transformers(directory, BitsAndBytesConfig(**four_bits if bits == 4 else {"load_in_8bit": True}), options)


def make_torchao(directory: Path, *, config: Any = None, **options: Any) -> Path:
    """Write a checkpoint with torchao, int8 weights by default."""
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return _make_with_transformers(directory, TorchAoConfig(config or Int8WeightOnlyConfig(version=2)), options)


def make_fine_grained_fp8(directory: Path, *, block: int = 32, **options: Any) -> Path:
    """Write a checkpoint as DeepSeek's, in FP8 with a scale for each square block (it has no library that runs without a GPU)."""
    make_checkpoint(directory, **SHAPE | {"dtype": "bfloat16"} | options)

    def compress(layer: str, weight: Tensor) -> dict[str, Tensor]:
        rows, columns = (-(-size // block) for size in weight.shape)
        padded = torch.zeros(rows * block, columns * block)
        padded[: weight.shape[0], : weight.shape[1]] = weight
        scales = padded.view(rows, block, columns, block).abs().amax((1, 3)) / 448
        codes = padded / scales.repeat_interleave(block, 0).repeat_interleave(block, 1)
        return {"weight": codes[: weight.shape[0], : weight.shape[1]].to(torch.float8_e4m3fn), "weight_scale_inv": scales}

    rewrite_layers(directory, compress)
    declare(directory, {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [block, block]})
    return directory


def rewrite_layers(directory: Path, compress: Callable[[str, Tensor], Mapping[str, Tensor]]) -> None:
    """Replace the weight of each linear layer of a plain checkpoint by what ``compress`` makes of its name and weight, by their ends."""
    path = directory / "model.safetensors"
    tensors = dict(load_file(path))
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        layer = name.removesuffix(".weight")
        tensors |= {f"{layer}.{end}": part.contiguous() for end, part in compress(layer, tensors.pop(name)).items()}
    save_file(tensors, path, metadata={"format": "pt"})


def declare(directory: Path, quantization_config: Mapping[str, Any]) -> None:
    """Write ``quantization_config`` into a checkpoint's config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantization_config}))


def shard(directory: Path, num_files: int = 2) -> None:
    """Split a checkpoint's tensors over several files with an index, the parts of one layer among them."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    weight_map = {name: f"model-{index % num_files + 1:05}-of-{num_files:05}.safetensors" for index, name in enumerate(sorted(tensors))}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, directory / file, metadata={"format": "pt"})
    path.unlink()
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _scheme(name: str, targets: list[str]) -> Any:
    from compressed_tensors.compressors.format import infer_module_format
    from compressed_tensors.quantization import preset_name_to_scheme

    scheme = preset_name_to_scheme(name, targets)
    if scheme.weights.group_size:
        scheme.weights.group_size = GROUP_SIZE
    if scheme.weights.block_structure:
        scheme.weights.block_structure = [GROUP_SIZE, GROUP_SIZE]
    scheme.format = infer_module_format(torch.nn.Linear, scheme).value
    return scheme


def _compress(weight: Tensor, scheme: Any) -> dict[str, Tensor]:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization.utils import calculate_qparams

    outputs, inputs = weight.shape
    args = scheme.weights
    blocks = {
        "tensor": weight.view(1, 1, -1),
        "channel": weight.view(outputs, 1, inputs),
        "group": weight.view(outputs, -1, GROUP_SIZE),
        "block": weight.view(outputs // GROUP_SIZE, GROUP_SIZE, -1, GROUP_SIZE).transpose(1, 2).flatten(2),
    }[args.strategy]
    scales, zeros = calculate_qparams(blocks.amin(-1), blocks.amax(-1), args)
    if args.strategy == "tensor":
        scales, zeros = scales.flatten(), zeros.flatten()
    layer = {"weight": weight, "weight_scale": scales, "weight_zero_point": zeros}
    compressed: dict[str, Tensor] = BaseCompressor.load_from_registry(scheme.format).compress(layer, scheme)
    return compressed


def _make_with_transformers(directory: Path, config: Any, options: Mapping[str, Any]) -> Path:
    from transformers import AutoModelForCausalLM

    source = make_checkpoint(directory / "source", **SHAPE | {"dtype": "bfloat16"} | options)
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=config, dtype="auto")
    model.save_pretrained(directory)
    for file in source.glob("*token*"):
        shutil.copy(file, directory)
    shutil.rmtree(source)
    return directory
