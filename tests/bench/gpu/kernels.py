"""What a trace of kernels says: which kind of work each is, and how long the device was busy at all."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a step consists of."""

    ATTENTION = "attention"
    LINEARS = "linears"
    SAMPLING = "sampling"
    COPIES = "copies"
    ELEMENTWISE = "elementwise"  # norms, rotary embeddings, gates, gathers: whatever is left


# The first that matches counts: flash attention is made of CUTLASS's parts, and a softmax within attention bears its name.
_RULES: tuple[tuple[Kind, str], ...] = (
    (Kind.COPIES, r"memcpy|memset|^aten::(copy_|_to_copy|to|clone)$"),
    (Kind.ATTENTION, r"attention|attend|attn|flash|fmha|sdpa|paged|split_?kv|^_combine"),
    (
        Kind.LINEARS,
        r"gemm|gemv|nvjet|cutlass|cublas|xmma|matmul|splitk|scaled_mm|wgmma|mkldnn|linear|^aten::(mm|addmm|bmm|baddbmm|addmv|mv)$",
    ),
    (
        Kind.SAMPLING,
        r"argmax|argmin|softmax|logsumexp|sort|topk|top_k|threshold|nucleus|cumsum|scan|multinomial|exponential|philox|random|gumbel|sampl"
        r"|penal|maxops|aten::(max|amax)$",
    ),
)


@dataclass(frozen=True)
class Span:
    """A kernel, or an operator on a CPU, from ``start_us`` to ``end_us``; ``own_us`` leaves out what it called."""

    name: str
    start_us: float
    end_us: float
    own_us: float


@dataclass(frozen=True)
class Split:
    """Shares of the time from the first kernel's start to the last one's end; kernels side by side can come to more than 1."""

    busy_share: float
    shares: dict[Kind, float]


def kind_of(name: str) -> Kind:
    """Return what a kernel does, by its name."""
    return next((kind for kind, rule in _RULES if re.search(rule, name, re.IGNORECASE)), Kind.ELEMENTWISE)


def busy_us(spans: Iterable[Span]) -> float:
    """Return how long at least one of them was running."""
    total_us, until_us = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.start_us):
        total_us += max(span.end_us - max(span.start_us, until_us), 0.0)
        until_us = max(until_us, span.end_us)
    return total_us


def split(spans: list[Span]) -> Split:
    """Return what the time went into; raise ValueError where there is none."""
    if not spans:
        raise ValueError("the profiler saw no kernels")
    wall_us = max(span.end_us for span in spans) - min(span.start_us for span in spans)
    shares = dict.fromkeys(Kind, 0.0)
    for span in spans:
        shares[kind_of(span.name)] += span.own_us / wall_us
    return Split(busy_us(spans) / wall_us, shares)
