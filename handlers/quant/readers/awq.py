"""AWQ in its own layout "gemm", as AutoAWQ and gptqmodel write it.

``qweight`` ``(inputs, outputs / 8)`` and ``qzeros`` ``(groups, outputs / 8)`` pack eight successive outputs of 4 bits into a word, in the
order 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits up. ``scales`` are ``(groups, outputs)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from handlers.errors import ConfigError
from handlers.native.quantized_matrix import QuantizedMatrix
from handlers.quant.readers.integers import integer_matrix, unpack
from handlers.quant.readers.reader import Reader

_PLACE_OF_OUTPUT = [0, 4, 1, 5, 2, 6, 3, 7]


def make_reader(settings: Mapping[str, Any]) -> Reader:
    """Return the reader for a checkpoint's settings; raises ConfigError for other layouts and widths."""
    layout = str(settings.get("version") or settings.get("checkpoint_format") or settings.get("format") or "gemm").lower()
    bits = settings.get("bits", settings.get("w_bit", 4))
    if layout != "gemm" or bits != 4:
        raise ConfigError(f"AWQ weights of {bits} bits in the layout {layout!r} are not supported; quantize to 4 bits with version: gemm")
    return Reader(frozenset({"qweight"}), frozenset({"qweight", "qzeros", "scales"}), _read)


def _read(parts: Mapping[str, Tensor]) -> QuantizedMatrix:
    return integer_matrix(_by_output(parts["qweight"]), parts["scales"].T.contiguous(), _by_output(parts["qzeros"]))


def _by_output(words: Tensor) -> Tensor:
    codes = unpack(words, bits=4)  # (rows, outputs)
    return codes.view(len(codes), -1, 8)[:, :, _PLACE_OF_OUTPUT].flatten(1).T.contiguous()
