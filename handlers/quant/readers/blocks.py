"""Scales whose blocks are not the groups of a QuantizedMatrix: repeated until they are."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def spread(scales: Tensor, shape: tuple[int, int], block: tuple[int, int]) -> Tensor:
    """Return ``(outputs, groups)`` from scales of blocks, ``(ceil(outputs / rows), ceil(inputs / columns))``; float32.

    ``shape`` is the weight's, ``block`` the rows and columns of a block. Groups are as wide as a block, or where the last block of a row
    is not whole, as wide as divides both it and the others.
    """
    (outputs, inputs), (rows, columns) = shape, block
    width = math.gcd(inputs, columns)
    block_of_row = torch.arange(outputs) // rows
    block_of_group = torch.arange(0, inputs, width) // columns
    return scales.float()[block_of_row[:, None], block_of_group]


def spread_flat(scales: Tensor, shape: tuple[int, int], block: int) -> Tensor:
    """Return ``(outputs, groups)`` from scales of blocks of ``block`` values, counted on from row to row."""
    outputs, inputs = shape
    width = math.gcd(inputs, block)
    return scales.float()[torch.arange(0, outputs * inputs, width) // block].view(outputs, -1)
