"""What weights take in bytes: as a configuration says that they are stored, and as another format or dtype would store them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from archiver.plan.model.facts import ModelFacts, Role, WeightGroup, merge_groups
from archiver.plan.model.scheme import PLAIN, Scheme, scheme_of
from archiver.plan.model.weights import Weight
from handlers.quant.formats import Format

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def stored_groups(weights: Iterable[Weight], dtype_bytes: int, scheme: Scheme) -> tuple[WeightGroup, ...]:
    """Return the weights by role, with what they take; ``dtype_bytes`` of an element that is not quantized."""
    return merge_groups(WeightGroup(weight.role, weight.num_elements, _stored_bytes(weight, dtype_bytes, scheme)) for weight in weights)


def requantize(facts: ModelFacts, format: Format, group_size: int = 128) -> ModelFacts:
    """Return what the same model would be in another format, its groups as long as said where the format leaves that open.

    Of the matrices only the totals are known: their rows are taken to be as long as the hidden size, which tables of a few bytes a matrix
    and scales of whole rows hardly show.
    """
    scheme = scheme_of(format, group_size)
    groups = [_requantized(group, facts, scheme) for group in facts.weights]
    return replace(facts, format=format, group_size=scheme.group_size, weights=merge_groups(groups), is_exact=False)


def with_dtype(facts: ModelFacts, dtype: str) -> ModelFacts:
    """Return the same model computed in another dtype; what is quantized stays so."""
    dtype_bytes = DTYPE_BYTES[dtype]
    quantized = scheme_of(facts.format).roles

    def changed(group: WeightGroup) -> WeightGroup:
        return group if group.role in quantized else replace(group, num_bytes=group.num_bytes * dtype_bytes // facts.dtype_bytes)

    cache = tuple(
        replace(layer, state_bytes=dtype_bytes) if layer.kind == "state" and layer.state_bytes == facts.dtype_bytes else layer
        for layer in facts.cache
    )
    return replace(facts, dtype=dtype, dtype_bytes=dtype_bytes, weights=tuple(changed(group) for group in facts.weights), cache=cache)


def active_elements(groups: Iterable[WeightGroup], head_elements: int, num_experts: int, num_active_experts: int) -> int:
    """Return how many elements take part in each token: of experts the active ones, and no look-ups.

    ``head_elements``: of a head, which multiplies also where it is the embedding.
    """
    sizes = {group.role: group.num_elements for group in groups}
    sizes.setdefault(Role.HEAD, head_elements)
    unused = (Role.EMBEDDING, Role.POSITION, Role.VISION, Role.EXPERT)
    used = sum(size for role, size in sizes.items() if role not in unused)
    return used + sizes.get(Role.EXPERT, 0) * num_active_experts // max(num_experts, 1)


def _stored_bytes(weight: Weight, dtype_bytes: int, scheme: Scheme) -> int:
    if weight.role in scheme.roles and weight.inputs > 1:
        return weight.count * scheme.stored_bytes(weight.outputs, weight.inputs)
    return weight.num_elements * dtype_bytes


def _requantized(group: WeightGroup, facts: ModelFacts, scheme: Scheme) -> WeightGroup:
    if scheme is PLAIN or group.role not in scheme.roles:
        return replace(group, num_bytes=group.num_elements * facts.dtype_bytes)
    return replace(group, num_bytes=scheme.stored_bytes(-(-group.num_elements // facts.hidden_size), facts.hidden_size))
