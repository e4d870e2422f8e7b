"""Weights as the headers of a checkpoint's files have them: exact to the byte, and by role."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from archiver.package.tensors import StoredTensor
from archiver.plan.model.facts import ModelFacts, Role, WeightGroup, merge_groups
from archiver.plan.model.scheme import Scheme
from archiver.plan.model.storage import active_elements
from archiver.plan.model.tensor_names import is_loaded, role_of
from handlers.quant.formats import PLAIN

_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})
_WORDS = frozenset({"I32", "U8"})
"""What codes of a few bits are packed in; codes of eight bits have dtypes of their own."""
_BESIDE_CODES = re.compile(
    r"\.(scales|qzeros|g_idx|SCB|weight_format|weight\.(absmax|nested_\w+|quant_map|quant_state\.\w+))$"
    r"|(weight|input|output|activation|k|v|q)_(scale|scale_inv|scale_ub|global_scale|zero_point|shape|g_idx|act_scale)$|_proj_scales$"
)
"""What belongs to a quantized matrix besides its codes, and counts as no parameter."""


def with_headers(facts: ModelFacts, tensors: Mapping[str, StoredTensor], scheme: Scheme, *, is_tied: bool) -> ModelFacts:
    """Return the facts with weights from headers instead of computed ones.

    Plain numbers count in the model's dtype, which they are converted to; what is quantized counts as it is stored. A head that ``is_tied``
    to the embeddings counts once, also where a file has both.
    """
    groups = [
        group for name, tensor in tensors.items() if is_loaded(name, facts.num_layers) for group in _groups(facts, name, tensor, scheme)
    ]
    merged = merge_groups(group for group in groups if not (is_tied and group.role is Role.HEAD))
    return replace(
        facts,
        weights=merged,
        num_active_elements=active_elements(merged, facts.vocab_size * facts.hidden_size, facts.num_experts, facts.num_active_experts),
        is_exact=True,
        is_multimodal=any(group.role is Role.VISION for group in merged),
    )


def _groups(facts: ModelFacts, name: str, tensor: StoredTensor, scheme: Scheme) -> Iterator[WeightGroup]:
    is_plain = scheme.format is PLAIN
    num_elements = tensor.num_elements if is_plain else _logical_elements(name, tensor, scheme)
    num_bytes = num_elements * facts.dtype_bytes if is_plain and tensor.dtype in _FLOATS else tensor.num_bytes
    yield from split_fused(name, num_elements, num_bytes, facts.num_heads, facts.num_kv_heads)


def _logical_elements(name: str, tensor: StoredTensor, scheme: Scheme) -> int:
    if _BESIDE_CODES.search(name):
        return 0
    if tensor.dtype in _WORDS:
        return int(tensor.num_bytes * 8 / scheme.bits)
    return tensor.num_elements


def split_fused(name: str, num_elements: int, num_bytes: int, num_heads: int, num_kv_heads: int) -> Iterator[WeightGroup]:
    """Yield a tensor's group, or two where it has the heads of queries, keys and values one beside the other."""
    role = role_of(name)
    if role is not None:
        yield WeightGroup(role, num_elements, num_bytes)
        return
    heads = max(num_heads + 2 * num_kv_heads, 1)
    elements, size = num_elements * num_heads // heads, num_bytes * num_heads // heads
    yield WeightGroup(Role.QUERY, elements, size)
    yield WeightGroup(Role.KEY_VALUE, num_elements - elements, num_bytes - size)
