"""GPTQ in its own layout, as AutoGPTQ and gptqmodel write it.

``qweight`` ``(inputs * bits / 32, outputs)`` packs the codes of successive inputs into a word, ``qzeros`` ``(groups, outputs * bits / 32)``
those of successive outputs, the lowest bits first. ``scales`` are ``(groups, outputs)``, ``g_idx`` is the group of each input. In the
format "gptq" the stored zeros are less by one, in "gptq_v2" they are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from handlers.errors import ConfigError
from handlers.native.quantized_matrix import QuantizedMatrix
from handlers.quant.readers.integers import activation_order, integer_matrix, unpack
from handlers.quant.readers.reader import Reader

_LESS_BY_ONE = {"gptq": True, "gptq_v2": False}


def make_reader(settings: Mapping[str, Any]) -> Reader:
    """Return the reader for a checkpoint's settings; raises ConfigError for a layout of another kernel (Marlin, BitBLAS …)."""
    layout = settings.get("checkpoint_format") or settings.get("format") or "gptq"
    if layout not in _LESS_BY_ONE:
        raise ConfigError(f"GPTQ weights in the layout {layout!r} are not supported; save them as one of {', '.join(_LESS_BY_ONE)}")
    bits = settings.get("bits", 4)
    if bits not in (2, 4, 8):
        raise ConfigError(f"GPTQ weights of {bits} bits are not supported; quantize to 4 or 8 bits")
    zero_offset = sum(1 << shift for shift in range(0, 32, bits)) if _LESS_BY_ONE[layout] else 0

    def read(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
        scales = parts["scales"].T.contiguous()
        # On whole words, with their carries: so a zero of 0 was made -1.
        zeros = unpack(parts["qzeros"] + zero_offset, bits).T
        order = activation_order(parts.get("g_idx"), scales.shape[1])
        codes = unpack(parts["qweight"].T, bits)
        return integer_matrix(codes if order is None else codes[:, order], scales, zeros, order)

    return Reader(frozenset({"qweight"}), frozenset({"qweight", "qzeros", "scales", "g_idx"}), read)
