"""How many sequences of what length a replica holds."""

from __future__ import annotations

from dataclasses import dataclass

from archiver.plan.hardware.profile import Hardware
from archiver.plan.ledger import kv_budget
from archiver.plan.sizes import Replica
from archiver.plan.workload import Quantiles, Workload
from handlers.memory_ledger import Interval, MemoryLedger, Part

NOT_KV: tuple[Part, ...] = ("weights", "activations", "logits", "context", "graphs")


@dataclass(frozen=True)
class Capacity:
    """Of one replica, with the memory that is expected for keys and values.

    ``kv_bytes`` of each of its devices, ``bytes_per_token`` of one token more; ``max_context``: tokens of the longest sequence that fits
    alone, at most the model's own limit; ``sequences``: how many fit at once when all are of the workload's median length, and when all are
    of its 95th percentile.
    """

    kv_bytes: Interval
    bytes_per_token: float
    max_context: int
    sequences: Quantiles

    @property
    def tokens(self) -> int:
        """Tokens that the KV cache holds in all; 0 for a model that keeps none."""
        return int(self.kv_bytes.expected / self.bytes_per_token) if self.bytes_per_token else 0


def find_capacity(replica: Replica, hardware: Hardware, ledger: MemoryLedger, workload: Workload) -> Capacity:
    """Return what the device's memory holds beside the fixed parts of ``ledger``."""
    budget = kv_budget(replica, hardware, ledger.total(*NOT_KV))
    lengths = workload.sequence_tokens
    fitting = Quantiles(*(_count(budget.expected, replica.sequence_bytes(length)) for length in (lengths.p50, lengths.p95)))
    longest = replica.model.max_model_len or replica.sizes.max_model_len
    return Capacity(budget, replica.token_bytes, longest_sequence(replica, budget.expected, longest), fitting)


def longest_sequence(replica: Replica, kv_bytes: float, limit: int) -> int:
    """Return the longest sequence, of at most ``limit`` tokens, that fits into ``kv_bytes``; 0 if not even a block does."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if replica.sequence_bytes(middle) <= kv_bytes else (low, middle - 1)
    return low


def _count(budget: float, each: float) -> int:
    return int(budget // each) if each else 1 << 20  # nothing is kept: memory sets no limit
