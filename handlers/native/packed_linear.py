"""A linear layer over a quantized weight that stays quantized in memory."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor, nn
from torch.nn import functional

from handlers.native.huge_pages import HugePages
from handlers.native.library import load_kernels
from handlers.native.packed_matrix import PANEL, PackedMatrix, can_hold
from handlers.native.quantized_matrix import QuantizedMatrix


class PackedLinear(nn.Module):
    """Multiply by a quantized weight, ``(…, inputs)`` to ``(…, outputs)``, in the dtype of the inputs.

    Takes the place of an ``nn.Linear``. Inputs are rounded to bfloat16 and multiplied by the values of the codes, group by group; scales
    and minima come after, in float32, so that no weight is rounded. ``packed`` is what the kernels read, None for the odd shapes that they
    cannot, which are dequantized whole for each call. ``memory`` is what the layers of one model share. Thread-safe.
    """

    def __init__(self, matrix: QuantizedMatrix, bias: Tensor | None = None, memory: HugePages | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = matrix.codes.shape
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.order = matrix.order
        self.packed = PackedMatrix.quantized(matrix, memory or HugePages()) if can_hold(matrix) and load_kernels("linear") else None
        self._matrix = matrix if self.packed is None else None

    @property
    def weight_bytes(self) -> int:
        """What the weight takes in memory."""
        if self.packed is not None:
            return self.packed.nbytes
        matrix = self._matrix
        assert matrix is not None
        return sum(part.nbytes for part in (matrix.codes, matrix.scales, matrix.minima, matrix.order) if part is not None)

    def dequantize(self) -> Tensor:
        """Return the weight in float32, ``(outputs, inputs)``, as it is multiplied."""
        if self.packed is None:
            assert self._matrix is not None
            return self._matrix.dequantize()
        weight = _multiply(self.packed, torch.eye(self.in_features))[:, : self.out_features].T.contiguous()
        return weight if self.order is None else torch.empty_like(weight).index_copy_(1, self.order, weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Multiply."""
        bias = None if self.bias is None else self.bias.to(inputs.dtype)
        if self.packed is None:
            return functional.linear(inputs, self.dequantize().to(inputs.dtype), bias)
        rows = inputs.reshape(-1, self.in_features)
        rows = rows if self.order is None else rows[:, self.order]
        outputs = _multiply(self.packed, rows)[:, : self.out_features].to(inputs.dtype).view(*inputs.shape[:-1], self.out_features)
        return outputs if bias is None else outputs + bias


def can_pack(device: torch.device) -> bool:
    """Whether quantized weights can be multiplied as they are on this machine; elsewhere they are better loaded dequantized."""
    return device.type == "cpu" and load_kernels("linear") is not None


def _multiply(matrix: PackedMatrix, rows: Tensor) -> Tensor:
    """Return ``rows`` times ``matrix`` in float32, ``(num_rows, columns)``."""
    library = load_kernels("linear")
    assert library is not None, "packed weights come with kernels"
    num_threads = torch.get_num_threads()
    inputs = functional.pad(rows.to(torch.bfloat16), (0, 0, 0, -len(rows) % PANEL)).contiguous()
    outputs = torch.empty(len(rows), matrix.columns)
    scratch = torch.empty(num_threads, PANEL * matrix.depth, dtype=torch.bfloat16)
    sums = torch.empty(len(rows), matrix.depth // matrix.group)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (inputs, scratch, sums, outputs))
    library.marquee_linear(ctypes.byref(matrix.struct()), *pointers, ctypes.c_int64(len(rows)), ctypes.c_int64(num_threads))
    return outputs
