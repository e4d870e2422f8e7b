"""How much memory keys and values may take: what others leave, and never more than the operator's share of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.config import EngineConfig
from handlers.engine.memory.footprint import Footprint

if TYPE_CHECKING:
    import torch

    from handlers.engine.paged_cache import KVShape

_GIB = 1 << 30
_CPU_BYTES = 4 * _GIB
_CPU_SHARE = 0.25
_RESERVE_SHARE = 0.01
_RESERVE_BYTES = 128 << 20
"""Against fragmentation, beside a hundredth of the GPU: allocators round up, and segments of other sizes are left between."""


@dataclass(frozen=True, slots=True)
class TokenBytes:
    """What is kept of one token: by all layers, and by the largest of them, which a step copies together (``PagedCache.context``)."""

    kept: int
    copied: int = 0

    @classmethod
    def of(cls, shapes: Sequence[KVShape], dtype: torch.dtype) -> TokenBytes:
        """Return it for a model whose layers keep ``shapes``, in ``dtype``."""
        layers = [shape.elements * dtype.itemsize for shape in shapes]
        return cls(kept=sum(layers), copied=max(layers))

    def __add__(self, other: TokenBytes) -> TokenBytes:
        """Return it for two models that take turns."""
        return TokenBytes(self.kept + other.kept, max(self.copied, other.copied))


def cpu_budget(config: EngineConfig, free_bytes: int) -> int:
    """Return what the operator set, else a part of what is free: the smaller of 4 GiB and a quarter."""
    if config.kv_memory_gib is not None:
        return int(config.kv_memory_gib * _GIB)
    return int(min(_CPU_BYTES, _CPU_SHARE * free_bytes))


def gpu_budget(config: EngineConfig, footprint: Footprint, token: TokenBytes, *, total_bytes: int, free_bytes: int) -> int:
    """Return what is left beside the fixed parts of ``footprint``, none of which is negative.

    All that the process takes, the copy of a layer included, stays within ``memory_fraction`` of ``total_bytes``; and it must fit into what
    is free now, where the activations are not, as they come and go with each step. What the operator set is the most, and no promise.
    """
    within_share = int(config.memory_fraction * total_bytes) - footprint.fixed
    reserve = max(int(_RESERVE_SHARE * total_bytes), _RESERVE_BYTES)
    within_free = free_bytes - footprint.activations - reserve
    spare = max(min(within_share, within_free), 0) * token.kept // (token.kept + token.copied)
    return spare if config.kv_memory_gib is None else min(spare, int(config.kv_memory_gib * _GIB))
