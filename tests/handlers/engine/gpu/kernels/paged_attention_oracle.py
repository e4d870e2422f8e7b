"""Contexts in blocks, with NaN wherever no key is, and attention to them, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from handlers.engine.attention import Scoring

TOLERANCES = {torch.float32: 5e-5, torch.float16: 2**-8, torch.bfloat16: 2**-5}
"""A GPU's exponential and quotient are off by two units in the last place, of logits as large as a soft cap."""
_NOWHERE = 2**30


@dataclass(frozen=True)
class Contexts:
    """Keys and values ``(num_blocks, block_tokens, num_kv_heads, head_dim)``, and where each sequence's lie."""

    keys: Tensor
    values: Tensor
    scales: Tensor | None
    block_table: Tensor
    lengths: Tensor

    def attend(self, query: Tensor, sequence: int, num_keys: Tensor, scoring: Scoring) -> Tensor:
        """Return ``(num_queries, num_heads, head_dim)``: query i, of that shape, attends to the first ``num_keys[i]`` of a sequence."""
        num_repeats, head_dim = query.shape[1] // self.keys.shape[2], query.shape[2]
        most = int(num_keys.max())
        blocks = self.block_table[sequence, : -(-most // self.keys.shape[1])].long()
        key, value = (
            cache.double()[blocks].flatten(0, 1)[:most].repeat_interleave(num_repeats, dim=1) for cache in (self.keys, self.values)
        )
        if self.scales is not None:
            key, value = key * self.scales[0], value * self.scales[1]
        scores = torch.einsum("nhd,khd->nhk", query.double(), key) * (head_dim**-0.5 if scoring.scale is None else scoring.scale)
        if scoring.softcap is not None:
            scores = torch.tanh(scores / scoring.softcap) * scoring.softcap
        distances = num_keys[:, None] - 1 - torch.arange(most)
        is_hidden = (distances < 0) if scoring.window is None else (distances < 0) | (distances >= scoring.window)
        weights = scores.masked_fill(is_hidden[:, None], -torch.inf).softmax(dim=-1).nan_to_num()  # no keys: zeros
        return torch.einsum("nhk,khd->nhd", weights, value).to(query.dtype)


def make_contexts(
    lengths: Sequence[int], num_kv_heads: int, head_dim: int, block_tokens: int, dtype: torch.dtype, *, is_fp8: bool = False
) -> Contexts:
    """Return random contexts in blocks of no order; a block table names blocks that there are not where a context has none."""
    widths = [-(-length // block_tokens) for length in lengths]
    order = torch.randperm(sum(widths) + 1).int()
    table = torch.full((len(lengths), max(*widths, 1) + 1), _NOWHERE, dtype=torch.int32)
    cache = torch.full((2, len(order), block_tokens, num_kv_heads, head_dim), torch.nan)
    begin = 0
    for row, (length, width) in enumerate(zip(lengths, widths, strict=True)):
        table[row, :width] = order[begin : begin + width]
        for position in range(length):
            cache[:, table[row, position // block_tokens], position % block_tokens] = torch.randn(2, num_kv_heads, head_dim)
        begin += width
    keys, values = cache.to(torch.float8_e4m3fn if is_fp8 else dtype)
    return Contexts(keys, values, torch.tensor([1.5, 0.3]) if is_fp8 else None, table, torch.tensor(lengths, dtype=torch.int32))


scorings = st.builds(
    Scoring,
    scale=st.sampled_from([None, 0.05]),
    window=st.sampled_from([None, 1, 7, 40, 1000]),
    softcap=st.sampled_from([None, 2.0, 50.0]),
)
