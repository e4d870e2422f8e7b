"""Sampling: the right distribution, the right support, and the same token for the same seed in any company."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from handlers.engine.sampler import _draw, sample, uniform
from handlers.requests import SamplingParams

VOCAB_SIZE = 1500  # more than the candidates that a nucleus is first searched among


def draw_many(logits: torch.Tensor, params: SamplingParams, count: int) -> torch.Tensor:
    """Return how often each token is drawn at ``count`` positions."""
    rows = logits.expand(count, -1)
    return torch.tensor(sample(rows, [params] * count, [11] * count, range(count))).bincount(minlength=logits.shape[-1])


def chi_square_bound(degrees: int) -> float:
    """Return a value that a chi-square variable exceeds about once in a million (Wilson and Hilferty 1931)."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 4.75 * math.sqrt(spread)) ** 3


@given(st.integers(-(2**70), 2**70), st.integers(0, 2**40))
def test_uniform_numbers_lie_in_the_half_open_unit_interval(seed, position):
    assert 0.0 <= uniform(seed, position) < 1.0
    assert uniform(seed, position) == torch.tensor(uniform(seed, position)).item()  # exact in float32


@pytest.mark.parametrize("numbers", [[uniform(5, i) for i in range(20_000)], [uniform(i, 5) for i in range(20_000)]])
def test_uniform_numbers_are_uniform_over_positions_and_over_seeds(numbers):
    counts = torch.histc(torch.tensor(numbers), bins=50, min=0.0, max=1.0)
    assert ((counts - 400) ** 2 / 400).sum() < chi_square_bound(49)


def test_the_numbers_of_neighbouring_seeds_are_not_the_same_ones_shifted():
    assert not {uniform(5, position) for position in range(100)} & {uniform(6, position) for position in range(100)}


@pytest.mark.parametrize(("number", "token_id"), [(0.0, 1), (1 - 2.0**-24, 2)])
def test_the_ends_of_the_unit_interval_never_reach_a_token_that_is_filtered_out(number, token_id):
    logits = torch.tensor([[0.0, 5.0, 5.0, 1.0]])
    assert _draw(logits, [SamplingParams(top_k=2)], [number]).tolist() == [token_id]


def test_greedy_takes_the_largest():
    logits = torch.randn(5, VOCAB_SIZE)
    assert sample(logits, [SamplingParams(temperature=0.0)] * 5, [0] * 5, [0] * 5) == logits.argmax(-1).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_follow_the_softmax(temperature):
    logits = torch.linspace(-2, 2, 20)
    count = 40_000
    expected = (logits / temperature).softmax(-1) * count
    observed = draw_many(logits, SamplingParams(temperature=temperature), count)
    assert ((observed - expected) ** 2 / expected).sum() < chi_square_bound(19)


def test_filtered_frequencies_follow_the_renormalised_softmax():
    logits = torch.linspace(-2, 2, 20)
    count = 40_000
    expected = logits[-6:].softmax(-1) * count
    observed = draw_many(logits, SamplingParams(top_k=6), count)
    assert observed[:-6].sum() == 0
    assert ((observed[-6:] - expected) ** 2 / expected).sum() < chi_square_bound(5)


def kept_by_definition(logits: torch.Tensor, params: SamplingParams) -> set[int]:
    """Return the tokens that may be drawn, straight from the definitions of top-k and top-p."""
    order = logits.argsort(descending=True)[: params.top_k or None]
    probabilities = (logits[order] / params.temperature).double().softmax(-1)
    preceding = probabilities.cumsum(-1) - probabilities
    return set(order[preceding < params.top_p].tolist()) | {int(order[0])}


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(top_k=1),
        SamplingParams(top_k=5),
        SamplingParams(top_p=0.3),
        SamplingParams(top_p=0.0),
        SamplingParams(top_k=5, top_p=0.7, temperature=2.0),
        SamplingParams(top_k=10**6, top_p=0.5),
    ],
)
def test_only_and_all_kept_tokens_are_drawn(params):
    logits = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(0)) * 6
    drawn = set(draw_many(logits, params, 8_000).nonzero()[:, 0].tolist())
    kept = kept_by_definition(logits, params)
    assert drawn <= kept
    likely = {token for token in kept if (logits / params.temperature).softmax(-1)[token] > 0.004}
    assert likely <= drawn


def test_a_nucleus_wider_than_the_candidates_is_still_exact():
    logits = torch.randn(VOCAB_SIZE, generator=torch.Generator().manual_seed(0)) * 0.1
    params = SamplingParams(top_p=0.9)
    kept = kept_by_definition(logits, params)
    assert len(kept) > 1100
    drawn = set(draw_many(logits, params, 6_000).nonzero()[:, 0].tolist())
    assert len(drawn - kept) <= 1  # the one at the edge, where float32 and float64 may differ
    assert len(drawn) > 0.95 * len(kept)


@given(st.data())
def test_a_row_is_the_same_alone_and_in_any_batch(data):
    params = st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 0.7, 1.0, 3.0]),
        top_k=st.sampled_from([0, 1, 4, 40, 1400]),
        top_p=st.sampled_from([1.0, 0.95, 0.5, 0.1]),
    )
    rows = data.draw(st.lists(st.tuples(params, st.integers(0, 2**64), st.integers(0, 10**6)), min_size=2, max_size=6))
    logits = torch.randn(len(rows), VOCAB_SIZE, generator=torch.Generator().manual_seed(len(rows))).bfloat16().float()  # with many ties
    together = sample(logits, *zip(*rows, strict=True))
    alone = [sample(logits[i : i + 1], [row[0]], [row[1]], [row[2]])[0] for i, row in enumerate(rows)]
    assert together == alone


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_without_a_distribution_is_none_and_leaves_the_others_alone(value):
    logits = torch.zeros(4, 10)
    logits[1, 3] = logits[3, 3] = value
    greedy, drawn = SamplingParams(temperature=0.0), SamplingParams()
    tokens = sample(logits, [greedy, greedy, drawn, drawn], [0] * 4, [0] * 4)
    assert [token is None for token in tokens] == [False, True, False, True]


@pytest.mark.parametrize("temperature", [1e-300, 1e-6, 1e6])
def test_extreme_temperatures_stay_valid(temperature):
    logits = torch.tensor([[-1e4, 0.0, 1e4, 5.0]])
    [token] = sample(logits, [SamplingParams(temperature=temperature)], [1], [1])
    assert token == 2 if temperature < 1 else token in range(4)
