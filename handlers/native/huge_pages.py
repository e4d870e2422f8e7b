"""Memory for weights in huge pages: a step reads all of them, and with small pages it would wait for the page tables, too."""

from __future__ import annotations

import contextlib
import math
import mmap

import torch
from torch import Tensor

_HUGE_PAGE = 2 << 20
_CHUNK = 8 * _HUGE_PAGE
_ALIGNMENT = 64  # a cache line


class HugePages:
    """Hands out pieces of memory, one behind the other; a chunk is freed when nobody has a piece of it any more. Not thread-safe.

    Linux gives huge pages to whoever asks (madvise); where it does not, the memory is as good as any.
    """

    def __init__(self) -> None:
        self._rest = torch.empty(0, dtype=torch.uint8)

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Return a tensor that is not initialized."""
        num_bytes = math.prod(shape) * dtype.itemsize
        taken = -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        if taken > len(self._rest):
            self._rest = _map(max(_CHUNK, -(-taken // _HUGE_PAGE) * _HUGE_PAGE))
        piece, self._rest = self._rest[:num_bytes], self._rest[taken:]
        return piece.view(dtype).view(shape)


def _map(num_bytes: int) -> Tensor:
    """Return ``num_bytes`` that begin where a huge page does."""
    area = mmap.mmap(-1, num_bytes + _HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel without them
            area.madvise(mmap.MADV_HUGEPAGE)
    octets = torch.frombuffer(area, dtype=torch.uint8)  # which keeps the mapping
    start = -octets.data_ptr() % _HUGE_PAGE
    return octets[start : start + num_bytes]
