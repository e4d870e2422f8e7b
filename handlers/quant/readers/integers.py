"""Small integers: packed into 32-bit words in files, codes of a QuantizedMatrix in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from handlers.errors import ConfigError
from handlers.native.quantized_matrix import QuantizedMatrix

_TABLE_BITS = 4
_NUM_CODES = 1 << _TABLE_BITS


def unpack(words: Tensor, bits: int) -> Tensor:
    """Return the integers of ``bits`` bits in ``words``, int32 ``(rows, words)``, the lowest first: ``(rows, words * 32 // bits)``.

    They are what a QuantizedMatrix has as codes: up to 4 bits uint8 from 0 up, above that int8, less by half their range than stored.
    """
    octets = words.flatten().view(torch.uint8).view(len(words), -1)
    if bits in (2, 4, 8):
        codes = torch.stack([octets >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)], dim=-1)
    else:  # across the edges of words
        ones = octets[..., None] >> torch.arange(8, dtype=torch.uint8) & 1
        whole = ones.flatten(1)[:, : octets.shape[1] * 8 // bits * bits]
        codes = (whole.view(len(whole), -1, bits) << torch.arange(bits, dtype=torch.uint8)).sum(-1, dtype=torch.uint8)[..., None]
    codes = codes.flatten(1)
    return codes if bits <= _TABLE_BITS else (codes - (1 << bits - 1)).view(torch.int8)


def integer_matrix(codes: Tensor, scales: Tensor, zeros: Tensor | int, order: Tensor | None = None) -> QuantizedMatrix:
    """Return the weight ``(codes - zeros) * scales``.

    ``codes`` are uint8 below 16 or int8, ``(outputs, inputs)``, ``scales`` and ``zeros`` ``(outputs, groups)``; one number as ``zeros`` is
    that of every group. A zero that all groups share goes into the table, others become minima.
    """
    scales = scales.float()
    zeros = torch.as_tensor(zeros, dtype=torch.float32).expand_as(scales)
    table, in_table = None, 0
    if codes.dtype == torch.uint8:
        in_table = int(zeros[0, 0]) if bool((zeros == zeros[0, 0]).all()) else 0
        table = torch.arange(-in_table, _NUM_CODES - in_table, dtype=torch.float32)
    minima = None if bool((zeros == in_table).all()) else -zeros * scales
    return QuantizedMatrix(codes, scales, minima, table, order)


def activation_order(group_of_input: Tensor | None, num_groups: int) -> Tensor | None:
    """Return the inputs sorted by their group, ``(inputs,)``; None if they are already, or if nothing is said (-1 is nothing, too)."""
    if group_of_input is None or bool((group_of_input < 0).any()):
        return None
    in_groups, order = torch.sort(group_of_input.long(), stable=True)
    sizes = torch.bincount(in_groups, minlength=num_groups)
    if len(sizes) != num_groups or bool((sizes != sizes[0]).any()):
        raise ConfigError("its groups of inputs differ in size (g_idx); quantize without activation order (desc_act: false)")
    return None if torch.equal(in_groups, group_of_input.long()) else order
