"""Choosing between two kernels that read prompts: the other one must work, say the same, and be faster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from handlers.engine.gpu.paged_attention import Prefill
from handlers.engine.gpu.prefill_choice import choose_prefill, find_torch_prefill


def kernel(says: Tensor | Exception, takes_ms: float) -> Prefill:
    """Return a fake kernel, which carries how long it takes."""

    def prefill(*_: object, **__: object) -> Tensor:
        if isinstance(says, Exception):
            raise says
        return says

    prefill.takes_ms = takes_ms  # type: ignore[attr-defined]
    return prefill


def choose(other: Prefill | Exception, ours: Prefill | None = None) -> tuple[Prefill, Prefill]:
    """Return what is chosen, and ours."""
    ours = ours or kernel(torch.ones(4), takes_ms=2.0)

    def find_other() -> Prefill:
        if isinstance(other, Exception):
            raise other
        return other

    def time_ms(compute: Callable[[], object]) -> float:
        return compute.args[0].takes_ms  # type: ignore[attr-defined]

    return choose_prefill(ours, find_other, lambda prefill: prefill(*[None] * 8), time_ms), ours


def test_the_faster_one_is_chosen() -> None:
    faster, slower = kernel(torch.ones(4) * 1.001, takes_ms=1.0), kernel(torch.ones(4), takes_ms=3.0)
    assert choose(faster)[0] is faster
    chosen, ours = choose(slower)
    assert chosen is ours


@pytest.mark.parametrize(
    "other",
    [
        ImportError("no module named flash_attn_interface"),
        TypeError("varlen_attn() got an unexpected keyword argument"),
        kernel(RuntimeError("paged keys need FlashAttention 3"), takes_ms=1.0),
        kernel(torch.ones(4) * 1.1, takes_ms=1.0),
        kernel(torch.full((4,), torch.nan), takes_ms=1.0),
        kernel(torch.ones(5), takes_ms=1.0),
    ],
)
def test_whatever_is_wrong_with_the_other_means_ours(other: Prefill | Exception) -> None:
    chosen, ours = choose(other)
    assert chosen is ours


def test_a_failure_of_ours_is_left_to_the_check_of_the_runner() -> None:
    ours = kernel(RuntimeError("out of shared memory"), takes_ms=1.0)
    assert choose(kernel(torch.ones(4), takes_ms=1.0), ours)[0] is ours


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it may be installed")
def test_torchs_kernel_is_not_there_without_its_library() -> None:
    with pytest.raises((ImportError, NotImplementedError, RuntimeError)):
        find_torch_prefill()
