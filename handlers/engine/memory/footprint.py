"""What an engine takes of its device, part by part."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes by part; 0 where a part was not measured. The parts are those of ``memory_ledger.Part``, without its reserve.

    ``activations`` are what the largest step takes beside the others, its logits and the sampler's copies of them included; ``context``
    what the process had before that and is neither weights nor cache: the driver, libraries, Python itself on a CPU.
    """

    weights: int = 0
    kv_cache: int = 0
    activations: int = 0
    context: int = 0
    graphs: int = 0

    @property
    def fixed(self) -> int:
        """All that is not the KV cache, whose size is chosen to fit beside it."""
        return self.weights + self.activations + self.context + self.graphs
