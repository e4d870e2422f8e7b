"""Any parameters in any batch: what a row gets is what a slow reading of the definitions allows, and is no neighbour's business."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampling_states import State, states

from handlers.engine.sampler import Sample, sample

VOCAB_SIZE = 1500  # more than the candidates that a nucleus is first searched among
EDGE = 1e-4
"""How far float32 may move a probability, and with it a token across the edge of a filter."""


def random_logits(rows: int, seed: int) -> torch.Tensor:
    logits = torch.randn(rows, VOCAB_SIZE, generator=torch.Generator().manual_seed(seed)) * 4
    return logits.bfloat16().float()  # with many ties


def by_definition(logits: np.ndarray, state: State) -> np.ndarray:
    """Return the logits that a token is chosen by, in float64, one feature after the other."""
    logits = logits.astype(np.float64)
    params = state.params
    for token_id, bias in params.logit_bias:
        logits[token_id] += bias
    for token_id in set(state.token_ids):
        logits[token_id] *= 1 / params.repetition_penalty if logits[token_id] > 0 else params.repetition_penalty
    for token_id in state.output:
        logits[token_id] -= params.frequency_penalty
    for token_id in set(state.output):
        logits[token_id] -= params.presence_penalty
    if len(state.output) < params.min_tokens:
        logits[list(state.end_token_ids)] = -np.inf
    return logits


def may_be_drawn(logits: np.ndarray, state: State) -> np.ndarray:
    """Return which tokens pass min_p, top_k and top_p, with the benefit of the doubt at the edges."""
    params = state.params
    scaled = logits / params.temperature
    weights = np.exp(scaled - scaled.max())
    weights[weights < params.min_p * (1 - EDGE)] = 0.0
    if params.top_k:
        weights[scaled < np.sort(scaled)[-min(params.top_k, len(scaled))] - EDGE] = 0.0
    order = np.argsort(-weights, kind="stable")
    probabilities = weights[order] / weights.sum()
    is_outside = np.cumsum(probabilities) - probabilities > params.top_p + EDGE
    lightest = weights[order][~is_outside].min()
    return (weights > 0) & (weights >= lightest * (1 - EDGE))


@given(st.lists(states(VOCAB_SIZE), min_size=1, max_size=4), st.integers(0, 99))
def test_every_choice_is_one_that_the_definitions_allow(rows, seed):
    logits = random_logits(len(rows), seed)
    for row, state, drawn in zip(logits.numpy().copy(), rows, sample(logits, rows), strict=True):
        chosen_by = by_definition(row, state)
        if state.params.is_greedy:
            assert chosen_by[drawn.token_id] >= chosen_by.max() - EDGE
        else:
            assert may_be_drawn(chosen_by, state)[drawn.token_id]


@given(st.lists(states(VOCAB_SIZE), min_size=1, max_size=4), st.integers(0, 99))
def test_log_probabilities_are_the_models_own(rows, seed):
    logits = random_logits(len(rows), seed)
    for row, state, drawn in zip(logits.double().numpy(), rows, sample(logits.clone(), rows), strict=True):
        if state.params.logprobs is None:
            assert drawn.logprob is None
            continue
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert drawn.logprob.token_id == drawn.token_id
        assert abs(drawn.logprob.logprob - expected[drawn.token_id]) < 1e-4
        values = [value for _, value in drawn.logprob.top]
        assert np.allclose(values, np.sort(expected)[::-1][: state.params.logprobs], atol=1e-4)
        assert np.allclose(values, [expected[token_id] for token_id, _ in drawn.logprob.top], atol=1e-4)
        assert len({token_id for token_id, _ in drawn.logprob.top}) == state.params.logprobs


@settings(max_examples=200)
@given(st.lists(states(VOCAB_SIZE), min_size=2, max_size=6), st.integers(0, 99))
def test_a_row_is_the_same_alone_and_in_any_batch_bit_for_bit(rows, seed):
    logits = random_logits(len(rows), seed)
    together = sample(logits.clone(), rows)
    backwards = sample(logits.flip(0), rows[::-1])[::-1]
    alone: list[Sample | None] = [sample(logits[i : i + 1].clone(), [row])[0] for i, row in enumerate(rows)]
    assert together == backwards == alone
