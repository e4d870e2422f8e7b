"""Which row of the support matrix a checkpoint's ``quantization_config`` means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from handlers.quant import formats
from handlers.quant.formats import Format
from handlers.quant.quantization_config import StoredQuantization

Settings = Mapping[str, Any]


def recognise(stored: StoredQuantization) -> Format | None:
    """Return the format; None for one that the matrix does not have."""
    find = _BY_METHOD.get(stored.method)
    return find(stored.settings) if find else None


def _bitsandbytes(settings: Settings) -> Format:
    if not settings.get("load_in_4bit"):
        return formats.BNB_INT8
    return formats.NF4 if settings.get("bnb_4bit_quant_type") == "nf4" else formats.FP4  # FP4 is bitsandbytes' default


def _torchao(settings: Settings) -> Format | None:
    """``quant_type`` is a name ("int8_weight_only"), or torchao's configuration: ``{"default": {"_type": "Int8WeightOnlyConfig", …}}``."""
    kind = settings.get("quant_type")
    config = kind.get("default", kind) if isinstance(kind, Mapping) else kind
    name = str(config.get("_type", "") if isinstance(config, Mapping) else config).replace("_", "").lower()
    if name.startswith("float8"):
        return formats.TORCHAO_FP8
    if name.startswith("int4") or (name.startswith("intx") and "int4" in str(config)):
        return formats.TORCHAO_INT4
    return formats.TORCHAO_INT8 if name.startswith(("int8", "intx")) else None


def _compressed_tensors(settings: Settings) -> Format | None:
    """Several groups of layers may differ; the first one with quantized weights decides."""
    groups = settings.get("config_groups")
    schemes = [group for group in groups.values() if isinstance(group, Mapping)] if isinstance(groups, Mapping) else []
    scheme = next((scheme for scheme in schemes if isinstance(scheme.get("weights"), Mapping)), None)
    if scheme is None:
        return None
    weights, inputs = scheme["weights"], scheme.get("input_activations")
    kind, bits = weights.get("type", "int"), weights.get("num_bits", 8)
    if kind != "int" or not isinstance(bits, int):
        return formats.CT_FP8 if (kind, bits) == ("float", 8) else None
    if bits > 4:
        return formats.W8A8 if inputs else formats.W8A16
    return formats.W4A16 if weights.get("symmetric", True) else formats.W4A16_ASYM


_BY_METHOD: Mapping[str, Callable[[Settings], Format | None]] = {
    "bitsandbytes": _bitsandbytes,
    "torchao": _torchao,
    "compressed-tensors": _compressed_tensors,
    "gptq": lambda _: formats.GPTQ,
    "awq": lambda _: formats.AWQ,
    "fbgemm_fp8": lambda _: formats.FBGEMM_FP8,
    "fp8": lambda _: formats.FINE_GRAINED_FP8,
    "mxfp4": lambda _: formats.MXFP4,
    "hqq": lambda _: formats.HQQ,
    "quanto": lambda _: formats.QUANTO,
}
