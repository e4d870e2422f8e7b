"""One format a file: from a checkpoint's tensors to a QuantizedMatrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from handlers.errors import ConfigError
from handlers.quant.quantization_config import StoredQuantization
from handlers.quant.readers import awq, bitsandbytes, compressed_tensors, float8, gptq, torchao
from handlers.quant.readers.reader import Reader

READERS: Mapping[str, Callable[[Mapping[str, Any]], Reader]] = {
    "awq": awq.make_reader,
    "bitsandbytes": bitsandbytes.make_reader,
    "compressed-tensors": compressed_tensors.make_reader,
    "fbgemm_fp8": float8.make_reader,
    "fp8": float8.make_reader,
    "gptq": gptq.make_reader,
    "torchao": torchao.make_reader,
}
"""By ``quant_method`` in a checkpoint's config.json."""


def reader_of(stored: StoredQuantization) -> Reader:
    """Return the reader of a checkpoint's quantized layers; raises ConfigError if there is none for its format."""
    if stored.method not in READERS:
        raise ConfigError(f"weights quantized with {stored.method!r} cannot be read here; use one of {', '.join(READERS)}, or GGUF")
    return READERS[stored.method](stored.settings)
