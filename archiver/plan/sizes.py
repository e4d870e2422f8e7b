"""The sizes of an engine that a plan chooses, or a user has chosen already."""

from __future__ import annotations

from dataclasses import dataclass

from archiver.plan.engines import Engine, KvDtype, kv_element_bytes
from archiver.plan.layout import Layout
from archiver.plan.model.facts import ModelFacts


@dataclass(frozen=True)
class EngineSizes:
    """Of one replica: lengths in tokens, ``max_running`` in sequences, ``memory_fraction`` of a device's total memory."""

    max_model_len: int
    max_running: int
    prefill_chunk_tokens: int = 512
    block_tokens: int = 16
    memory_fraction: float = 0.85
    kv_memory_bytes: int | None = None
    kv_dtype: KvDtype = "auto"

    @property
    def step_tokens(self) -> int:
        """Tokens of the largest step: a chunk of prompts, and one of each other running sequence."""
        return self.prefill_chunk_tokens + self.max_running - 1


@dataclass(frozen=True)
class Replica:
    """One copy of a model in an engine, over the GPUs of a layout."""

    model: ModelFacts
    engine: Engine
    layout: Layout
    sizes: EngineSizes

    @property
    def kv_bytes(self) -> float:
        """Bytes of one number of keys and values."""
        return kv_element_bytes(self.model, self.sizes.kv_dtype)

    def sequence_bytes(self, num_tokens: int) -> float:
        """Return what each GPU keeps of a sequence of ``num_tokens``, in whole blocks; of pipeline stages that of the largest."""
        block = self.sizes.block_tokens
        tokens = -(-num_tokens // block) * block
        whole = self.engine.sequence_bytes(self.model, tokens, self.kv_bytes, self.layout.tensor)
        return whole * stage_share(self.model, self.layout)

    @property
    def token_bytes(self) -> float:
        """Return what each GPU keeps of one token more of a short sequence: states, which do not grow, are left out."""
        block = self.sizes.block_tokens
        return (self.sequence_bytes(2 * block) - self.sequence_bytes(block)) / block


def stage_share(model: ModelFacts, layout: Layout) -> float:
    """Return which share of the layers the largest pipeline stage has."""
    return -(-model.num_layers // layout.pipeline) / model.num_layers
