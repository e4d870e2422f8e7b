"""Quantized models through transformers and each format's own library and kernels: the way they are loaded on GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from handlers.errors import ConfigError
from handlers.quant import formats
from handlers.quant.formats import Format
from handlers.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers.utils.quantization_config import QuantizationConfigMixin


def load_stored(checkpoint: Checkpoint, row: Format) -> Any:
    """Return the model of a checkpoint whose weights are stored in the format ``row``. Raises ConfigError."""
    return _load(checkpoint, row, _reading(row))


def load_making(checkpoint: Checkpoint, row: Format) -> Any:
    """Return the model of a plain checkpoint, its linear layers quantized to ``row``, what a recipe makes. Raises ConfigError."""
    return _load(checkpoint, row, _making(row))


def _load(checkpoint: Checkpoint, row: Format, quantization: QuantizationConfigMixin | None) -> Any:
    assert row.cuda is not None, "preflight comes first"
    dtype = row.cuda.dtype if checkpoint.config.dtype == "auto" else None
    try:
        return checkpoint.load(quantization=quantization, dtype=dtype)
    except (ImportError, RuntimeError) as error:  # how libraries say what they lack
        raise ConfigError(f"cannot load {checkpoint.directory.name}/ as {row.name}: {' '.join(str(error).split())}") from error


def _reading(row: Format) -> QuantizationConfigMixin | None:
    """Return what transformers must be told beyond what the checkpoint says."""
    from transformers import CompressedTensorsConfig

    if row is formats.CT_FP8:
        return CompressedTensorsConfig(use_optimized_inference=True)  # or each layer is decompressed at its first forward pass
    if row in (formats.W4A16, formats.W4A16_ASYM, formats.W8A16, formats.W8A8):
        # Which else happens at the first forward pass, without zero points (transformers 5.23), and leaves as much in memory.
        return CompressedTensorsConfig(run_compressed=False)
    return None


def _making(row: Format) -> QuantizationConfigMixin:
    import torch
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if row is formats.NF4:
        return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    if row is formats.BNB_INT8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return TorchAoConfig(_torchao(row))


def _torchao(row: Format) -> Any:
    from torchao.quantization import Float8DynamicActivationFloat8WeightConfig, Int4WeightOnlyConfig, Int8WeightOnlyConfig, PerRow

    if row is formats.TORCHAO_FP8:
        return Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    if row is formats.TORCHAO_INT4:
        return Int4WeightOnlyConfig(group_size=32, int4_packing_format="tile_packed_to_4d")  # torch's own kernel, without further packages
    assert row is formats.TORCHAO_INT8, row
    return Int8WeightOnlyConfig(version=2)
