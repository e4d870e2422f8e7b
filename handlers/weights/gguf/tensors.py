"""The tensors of a GGUF file, read one at a time as transformers wants them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from handlers.errors import ConfigError
from handlers.gguf_file import GgufFile, GgufTensor
from handlers.native.quantized_matrix import QuantizedMatrix
from handlers.weights.gguf.blocks import can_unpack, unpack
from handlers.weights.gguf.families import row_heads

_DENSE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class GgufTensors:
    """Reads from the mapped file: only what is read takes memory. Not thread-safe."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file
        self._bytes = torch.from_file(str(file.path), shared=False, size=file.path.stat().st_size, dtype=torch.uint8)

    def read(self, name: str) -> Tensor | QuantizedMatrix:
        """Return the tensor ``name``; a matrix in blocks comes as what they say, one in an unusual format as float32."""
        tensor = self._file.tensors[name]
        weight = self._decode(name, tensor)
        heads = row_heads(self._file, name)
        return weight if heads is None else _take_rows(weight, _rows_by_half(tensor.shape[0], heads))

    def read_dense(self, name: str) -> Tensor:
        """Return the tensor ``name`` as plain numbers, as its rows stand in the file."""
        weight = self._decode(name, self._file.tensors[name])
        return weight if isinstance(weight, Tensor) else weight.dequantize()

    def _decode(self, name: str, tensor: GgufTensor) -> Tensor | QuantizedMatrix:
        data = self._bytes[tensor.offset : tensor.offset + tensor.num_bytes].clone()
        if tensor.type in _DENSE:
            return data.view(_DENSE[tensor.type]).view(tensor.shape)
        rows = data.view(tensor.shape[0], -1)
        return unpack(tensor.type, rows) if can_unpack(tensor.type) else _dequantize(name, tensor, rows)


def _dequantize(name: str, tensor: GgufTensor, rows: Tensor) -> Tensor:
    import gguf

    try:
        return torch.from_numpy(gguf.dequantize(rows.numpy(), gguf.GGMLQuantizationType[tensor.type]))
    except NotImplementedError as error:
        raise ConfigError(f"{name} is in the format {tensor.type}, which only llama.cpp reads: set engine.name: llamacpp") from error


def _rows_by_half(num_rows: int, heads: int) -> Tensor:
    """Return which row of the file each row of the model is: first all that come first in a pair, then the others, head by head."""
    return torch.arange(num_rows).view(heads, -1, 2).transpose(1, 2).flatten()


def _take_rows(weight: Tensor | QuantizedMatrix, rows: Tensor) -> Tensor | QuantizedMatrix:
    if isinstance(weight, Tensor):
        return weight[rows]
    minima = None if weight.minima is None else weight.minima[rows]
    return replace(weight, codes=weight.codes[rows], scales=weight.scales[rows], minima=minima)
