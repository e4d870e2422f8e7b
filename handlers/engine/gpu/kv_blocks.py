"""Keys and values of all layers in blocks: one allocation, in the numbers of the model or in 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor


class KVBlocks:
    """Blocks of ``block_tokens`` tokens (PagedAttention, Kwon et al. 2023); nothing is ever read that was not written before.

    ``numbers`` are ``(num_layers, 2, num_blocks, block_tokens, num_kv_heads, head_dim)``, ``layers`` the keys and values of each as views.
    With ``dtype`` float8_e4m3fn they are divided by ``scales`` ``(2,)``, float32, which is None otherwise.
    """

    def __init__(
        self, num_layers: int, num_kv_heads: int, head_dim: int, *, block_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._num_layers = num_layers
        self._block_shape = (block_tokens, num_kv_heads, head_dim)
        self._dtype, self._device = dtype, device
        # transformers' models do not keep the scales that a checkpoint may have for its keys and values.
        self.scales = torch.ones(2, device=device) if dtype == torch.float8_e4m3fn else None
        self.resize(0)

    @property
    def nbytes(self) -> int:
        """What all blocks take."""
        return self.numbers.nbytes

    def resize(self, num_blocks: int) -> None:
        """Have other blocks, with unknown content; the old ones are given back first, as there may be no room for both."""
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.numbers = torch.empty(0, dtype=self._dtype, device=self._device)
        shape = (self._num_layers, 2, num_blocks, *self._block_shape)
        self.numbers = torch.empty(shape, dtype=self._dtype, device=self._device)
        self.layers = [(keys, values) for keys, values in self.numbers]
