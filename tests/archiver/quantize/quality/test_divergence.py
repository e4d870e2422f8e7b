"""Per-token comparison of two models' logits."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from archiver.quantize.quality.divergence import Divergence, common_length, perplexity


def compare(before: torch.Tensor, after: torch.Tensor, token_ids: list[int] | None = None) -> Divergence:
    return Divergence.of(before, after, torch.tensor(token_ids if token_ids is not None else [0] * len(before)))


def test_numbers_of_two_known_distributions():
    before, after = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.5, 0.25]]).log()
    divergence = compare(before, after, [1])
    torch.testing.assert_close(divergence.kl, torch.tensor([0.25 * math.log(2)]))
    torch.testing.assert_close(divergence.nll_before, torch.tensor([math.log(4)]))
    torch.testing.assert_close(divergence.nll_after, torch.tensor([math.log(2)]))
    assert not divergence.agrees.item()
    assert math.isclose(perplexity(divergence.nll_before), 4.0, rel_tol=1e-6)


@given(seed=st.integers(0, 2**16), rows=st.integers(1, 300), shift=st.floats(-5, 5))
def test_kl_is_that_of_torch_and_does_not_see_a_shift_of_logits(seed, rows, shift):
    generator = torch.Generator().manual_seed(seed)
    before, after = torch.randn(2, rows, 17, generator=generator)
    expected = torch.nn.functional.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(compare(before, after + shift).kl, expected, rtol=1e-4, atol=1e-5)
    assert compare(before, before + shift).kl.max() < 1e-5
    assert compare(before, before).agrees.all()


def test_logits_that_are_no_numbers_are_counted_and_spread_to_the_means():
    before = torch.zeros(3, 4)
    after = torch.zeros(3, 4)
    after[1, 2] = math.inf
    after[2, 0] = math.nan
    divergence = compare(before, after)
    assert divergence.is_broken.tolist() == [False, True, True]
    assert math.isnan(divergence.kl.mean())
    assert math.isnan(perplexity(divergence.nll_after))


def test_perplexity_beyond_all_numbers_is_infinite():
    assert perplexity(torch.tensor([2000.0])) == math.inf


def test_common_length():
    assert common_length([1, 2, 3], [1, 2, 4]) == 2
    assert common_length([1, 2], [1, 2, 3]) == 2
    assert common_length([], [1]) == 0
