"""A model as the planner sees it: what its weights are, and what its layers keep of a sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from handlers.quant.formats import Format


class Role(StrEnum):
    """What weights are for; it decides how tensor parallelism divides them."""

    EMBEDDING = "embedding"
    HEAD = "head"
    POSITION = "position"
    NORM = "norm"
    QUERY = "query"
    KEY_VALUE = "key_value"
    OUTPUT = "output"
    LATENT = "latent"
    """Projections to and from what a layer keeps in common for all heads (MLA's down-projections)."""
    MLP = "mlp"
    EXPERT = "expert"
    ROUTER = "router"
    RECURRENT = "recurrent"
    """Linear attention, state-space and convolution layers."""
    VISION = "vision"
    """Whatever sees or hears: towers and projectors of multimodal models."""


@dataclass(frozen=True)
class WeightGroup:
    """All weights of one role in one storage: ``num_elements`` as the model counts them, ``num_bytes`` with scales and zero points."""

    role: Role
    num_elements: int
    num_bytes: int


@dataclass(frozen=True)
class CacheLayer:
    """What one layer keeps of a sequence.

    ``full`` and ``sliding`` (of the last ``window`` tokens) attention keep ``num_heads`` heads of ``head_elements`` a token, key and value
    together; ``latent`` attention one head, which all ranks of tensor parallelism hold alike, and which engines that do not know it keep as
    ``expanded_elements`` (all heads' keys and values); ``state`` a constant ``state_elements`` in ``num_heads`` equal parts, of
    ``state_bytes`` an element (0: those of the KV cache).
    """

    kind: Literal["full", "sliding", "latent", "state"]
    num_heads: int
    head_elements: int = 0
    window: int | None = None
    state_elements: int = 0
    state_bytes: int = 0
    expanded_elements: int = 0

    def tokens(self, num_tokens: int) -> int:
        """Return of how many of ``num_tokens`` tokens the layer keeps something."""
        if self.kind == "state":
            return 0
        return min(num_tokens, self.window) if self.window else num_tokens

    def heads(self, tensor_parallel: int = 1) -> int:
        """Return the heads on each rank: at least one, so that ranks beyond the number of heads hold copies."""
        return self.num_heads if self.kind == "latent" else max(-(-self.num_heads // tensor_parallel), 1)

    def bytes(self, num_tokens: int, kv_bytes: float, tensor_parallel: int = 1) -> float:
        """Return what a sequence of ``num_tokens`` takes on one rank; ``kv_bytes`` of an element of keys and values."""
        if self.kind == "state":
            return self.state_elements / self.num_heads * self.heads(tensor_parallel) * (self.state_bytes or kv_bytes)
        return self.tokens(num_tokens) * self.heads(tensor_parallel) * self.head_elements * kv_bytes


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of a model; of a multimodal one, those of its language model, with the weights of all.

    ``dtype_bytes``: of an element that is computed with, 2 for bfloat16. ``format``: how the weights are stored; ``group_size`` of
    quantized ones, in input columns (None: none, or whole rows). ``intermediate_size``: of one expert where there are experts.
    ``num_heads``: of queries, each of ``head_dim``; 0, as the KV heads, where no layer attends. ``cache``: of each layer in turn; one with
    attention beside a recurrent part has several. ``num_active_elements`` take part in each token: fewer than all with experts, and without
    embeddings. ``is_exact``: the weights are those of headers, not computed from the configuration. ``is_known``: the family has a
    description; one without is taken for a Llama. ``max_model_len``: None when the configuration names none.
    """

    name: str
    architecture: str
    model_type: str
    num_layers: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    max_model_len: int | None
    dtype: str
    dtype_bytes: int
    format: Format
    group_size: int | None
    num_experts: int
    num_active_experts: int
    weights: tuple[WeightGroup, ...]
    cache: tuple[CacheLayer, ...]
    num_active_elements: int
    is_exact: bool
    is_multimodal: bool = False
    is_known: bool = True

    @property
    def num_elements(self) -> int:
        """Parameters."""
        return sum(group.num_elements for group in self.weights)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights, as they are stored."""
        return sum(group.num_bytes for group in self.weights)

    def role_bytes(self, *roles: Role) -> int:
        """Return the bytes of the weights of some roles."""
        return sum(group.num_bytes for group in self.weights if group.role in roles)

    def kv_bytes_per_token(self, kv_bytes: float, tensor_parallel: int = 1) -> float:
        """Return what one more token takes on one rank where no window is full yet: the number that the guide's formula gives."""
        return sum(layer.bytes(1, kv_bytes, tensor_parallel) for layer in self.cache if layer.kind != "state")

    def sequence_bytes(self, num_tokens: int, kv_bytes: float, tensor_parallel: int = 1) -> float:
        """Return what a sequence of ``num_tokens`` takes on one rank."""
        return sum(layer.bytes(num_tokens, kv_bytes, tensor_parallel) for layer in self.cache)


def merge_groups(groups: Iterable[WeightGroup]) -> tuple[WeightGroup, ...]:
    """Return one group a role, in the order of the roles."""
    found = list(groups)
    merged = []
    for role in Role:
        alike = [group for group in found if group.role is role]
        if alike:
            merged.append(WeightGroup(role, sum(each.num_elements for each in alike), sum(each.num_bytes for each in alike)))
    return tuple(merged)
