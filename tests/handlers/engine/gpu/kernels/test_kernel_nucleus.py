"""The kernel keeps what sorting keeps, but for sums so near the limit that rounding decides."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.engine.gpu.kernels.nucleus import nucleus_thresholds

TOP_K = st.one_of(st.just(None), st.integers(1, 40))
TOP_P = st.one_of(st.just(2.0), st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999]))


def thresholds(weights: torch.Tensor, rows: list[tuple[int | None, float]]) -> torch.Tensor:
    top_k = torch.tensor([[float(weights.shape[-1] if k is None else min(k, weights.shape[-1]))] for k, _ in rows])
    return nucleus_thresholds(weights, top_k, torch.tensor([[p] for _, p in rows]))


def kept_by_sorting(weights: torch.Tensor, k: int | None, p: float, slack: float) -> set[float]:
    """The weights of one row that are kept, with ``slack`` added to the share that may lie before them."""
    ranked = sorted(weights.double().tolist(), reverse=True)[:k]
    goal, before, kept = (p + slack) * sum(ranked), 0.0, {ranked[0]}
    for weight in ranked:
        if before >= goal:
            break
        kept.add(weight)
        before += weight
    return kept


@settings(max_examples=10)
@given(st.integers(0, 2**31), st.sampled_from([1, 7, 50]), st.floats(0.1, 5), st.lists(st.tuples(TOP_K, TOP_P), min_size=1, max_size=3))
def test_what_is_kept_is_what_sorting_keeps(seed, vocab_size, temperature, rows):
    torch.manual_seed(seed)
    logits = torch.randn(len(rows), vocab_size).div(temperature).mul(4).round().div(4)  # some are equal
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    for row, threshold, (k, p) in zip(weights, thresholds(weights, rows)[:, 0], rows, strict=True):
        kept = set(row[row >= threshold].double().tolist())
        assert kept_by_sorting(row, k, p, -1e-5) <= kept <= kept_by_sorting(row, k, p, 1e-5)


def test_a_row_longer_than_a_tile_with_most_of_its_mass_in_the_tail():
    weights = torch.full((1, 9000), 0.5)
    weights[0, 8999] = 1.0
    weights[0, :10] = 0.25
    assert thresholds(weights, [(None, 0.9)]).item() == 0.5
    assert thresholds(weights, [(None, 0.9999)]).item() == 0.25
    assert thresholds(weights, [(1, 0.9)]).item() == 1.0


def test_filtered_weights_of_zero_are_never_needed():
    weights = torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    assert thresholds(weights, [(3, 2.0)]).item() == 0.0
    assert thresholds(weights, [(None, 0.99)]).item() == 0.5


@pytest.mark.parametrize("rows", [0, 3])
def test_rows_do_not_depend_on_each_other(rows):
    weights = torch.rand(rows, 100)
    together = thresholds(weights, [(5, 0.7)] * rows)
    assert together.tolist() == [thresholds(row[None], [(5, 0.7)]).tolist()[0] for row in weights]
