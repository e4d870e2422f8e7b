"""The support matrix: every format of weights, one row each, with what it takes to run it on a CPU and on a CUDA GPU.

Preflight, ``marquee doctor`` and the README's table read these rows. Compute capabilities are those of the libraries' documentation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Device = Literal["cpu", "cuda"]
HalfPrecision = Literal["float16", "bfloat16"]


@dataclass(frozen=True)
class Route:
    """How one kind of device runs a format.

    ``way``: what multiplies. ``packages`` must be installed. ``capability``: the least CUDA compute capability, (0, 0) if none is stated.
    ``dtype``: the one to compute in when the operator leaves it open; None is the checkpoint's. ``has_run``: whether a test of ours has
    run it, or it is written only.
    """

    way: str
    packages: tuple[str, ...] = ()
    capability: tuple[int, int] = (0, 0)
    dtype: HalfPrecision | None = None
    has_run: bool = False


PACKED = Route("packed, our kernels", has_run=True)


@dataclass(frozen=True)
class Format:
    """A format, by its ``name``; ``sign`` is how a checkpoint shows it, ``bits`` are those of a weight without its share of scales.

    ``recipe`` is what makes it with ``marquee quantize``, ``load_recipe`` with ``handler.quantization.recipe``. ``is_calibrated``: whether
    making it takes sample texts. ``obstacle``: why no device runs it.
    """

    name: str
    sign: str
    bits: int
    cuda: Route | None
    cpu: Route | None = PACKED
    recipe: str | None = None
    load_recipe: str | None = None
    is_calibrated: bool = False
    obstacle: str | None = None

    def route(self, device: Device) -> Route | None:
        """Return how a kind of device runs it; None if it does not."""
        return self.cpu if device == "cpu" else self.cuda


def _on_gpus(way: str, *packages: str, since: tuple[int, int] = (0, 0), dtype: HalfPrecision | None = None) -> Route:
    return Route(way, packages, since, dtype)


_DECOMPRESSED = _on_gpus("decompressed at load", "compressed-tensors")
_BITSANDBYTES = "bitsandbytes' kernels", "bitsandbytes"
_TORCHAO = "torchao's kernels", "torchao"

PLAIN = Format("plain", "nothing", 16, _on_gpus("torch"), Route("our kernels, or torch", has_run=True))

_NF4 = _on_gpus(*_BITSANDBYTES, since=(6, 0), dtype="bfloat16")
NF4 = Format("bitsandbytes NF4", "bitsandbytes, load_in_4bit, nf4", 4, _NF4, recipe="nf4", load_recipe="nf4")
FP4 = Format("bitsandbytes FP4", "bitsandbytes, load_in_4bit, fp4", 4, _NF4)
_INT8 = _on_gpus(*_BITSANDBYTES, since=(7, 5), dtype="float16")
BNB_INT8 = Format("bitsandbytes int8", "bitsandbytes, load_in_8bit", 8, _INT8, recipe="int8", load_recipe="int8")

_AO_INT8 = _on_gpus(*_TORCHAO, dtype="bfloat16")
TORCHAO_INT8 = Format("torchao int8", "torchao, Int8…Config", 8, _AO_INT8, recipe="torchao-int8", load_recipe="torchao-int8")
_AO_INT4 = _on_gpus(*_TORCHAO, since=(8, 0), dtype="bfloat16")
TORCHAO_INT4 = Format("torchao int4", "torchao, Intx…Config or Int4…Config", 4, _AO_INT4, load_recipe="torchao-int4")
_AO_FP8 = _on_gpus(*_TORCHAO, since=(8, 9), dtype="bfloat16")
TORCHAO_FP8 = Format("torchao FP8", "torchao, Float8…Config", 8, _AO_FP8, load_recipe="fp8")

_SIGN = "compressed-tensors,"
W4A16 = Format("compressed-tensors W4A16", f"{_SIGN} 4 bits or fewer", 4, _DECOMPRESSED, recipe="gptq-int4", is_calibrated=True)
_ASYMMETRIC = f"{_SIGN} the same with zero points"
W4A16_ASYM = Format("compressed-tensors W4A16, asymmetric", _ASYMMETRIC, 4, _DECOMPRESSED, recipe="awq-int4", is_calibrated=True)
W8A16 = Format("compressed-tensors W8A16", f"{_SIGN} 8-bit weights", 8, _DECOMPRESSED)
W8A8 = Format("compressed-tensors W8A8", f"{_SIGN} 8-bit weights and inputs", 8, _DECOMPRESSED, recipe="int8-w8a8")
_SCALED_MM = _on_gpus("torch's scaled_mm", "compressed-tensors", since=(8, 9))
CT_FP8 = Format("compressed-tensors FP8", f"{_SIGN} float weights", 8, _SCALED_MM, recipe="fp8-dynamic")

_GPTQ = _on_gpus("gptqmodel's kernels", "optimum", "gptqmodel", since=(7, 0), dtype="float16")
GPTQ = Format("GPTQ", "gptq", 4, _GPTQ, is_calibrated=True)
_AWQ = _on_gpus("gptqmodel's kernels", "gptqmodel", since=(7, 5), dtype="float16")
AWQ = Format("AWQ", "awq", 4, _AWQ, is_calibrated=True)
_GGUF = Route("our kernels, or llama.cpp's", ("gguf",), has_run=True)
GGUF = Format("GGUF", "a .gguf file", 4, _on_gpus("dequantized at load", "gguf"), _GGUF, recipe="gguf:Q4_K_M")
_TRITON_FP8 = _on_gpus("transformers' Triton kernels", "triton", since=(8, 9), dtype="bfloat16")
FINE_GRAINED_FP8 = Format("fine-grained FP8", "fp8, blocks of 128 by 128", 8, _TRITON_FP8)
_FBGEMM = _on_gpus("fbgemm's kernels", "fbgemm-gpu", since=(9, 0), dtype="bfloat16")
FBGEMM_FP8 = Format("fbgemm FP8", "fbgemm_fp8", 8, _FBGEMM, Route(PACKED.way))
_TRITON_MXFP4 = _on_gpus("Triton kernels", "triton", "kernels", since=(7, 5), dtype="bfloat16")
MXFP4 = Format("mxfp4", "mxfp4", 4, _TRITON_MXFP4, cpu=None)
HQQ = Format("HQQ", "hqq", 4, None, None, obstacle="transformers 5 does not load it")
QUANTO = Format("quanto", "quanto", 8, None, None, obstacle="it cannot be saved, so no checkpoint or archive can hold it")

FORMATS = (
    *(PLAIN, NF4, FP4, BNB_INT8, TORCHAO_INT8, TORCHAO_INT4, TORCHAO_FP8, W4A16, W4A16_ASYM, W8A16, W8A8, CT_FP8),
    *(GPTQ, AWQ, GGUF, FINE_GRAINED_FP8, FBGEMM_FP8, MXFP4, HQQ, QUANTO),
)
LOAD_RECIPES: Mapping[str, Format] = {row.load_recipe: row for row in FORMATS if row.load_recipe}
"""What ``handler.quantization.recipe`` makes, by its name."""
