"""Biases, penalties and early ends: what the definitions say, and what transformers says."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sampling_states import State
from transformers import MinNewTokensLengthLogitsProcessor, RepetitionPenaltyLogitsProcessor

from handlers.engine.logits import adjust
from handlers.requests import SamplingParams

VOCAB_SIZE = 30


def random_logits(rows: int) -> torch.Tensor:
    return torch.randn(rows, VOCAB_SIZE, generator=torch.Generator().manual_seed(3)) * 4


def adjusted(logits: torch.Tensor, *states: State) -> torch.Tensor:
    result = logits.clone()
    adjust(result, states)
    return result


@given(st.lists(st.integers(0, VOCAB_SIZE - 1), min_size=1), st.lists(st.integers(0, VOCAB_SIZE - 1)), st.sampled_from([0.5, 1.2, 2.0]))
def test_repetition_penalty_is_that_of_transformers(prompt, output, penalty):
    logits = random_logits(1)
    state = State(SamplingParams(repetition_penalty=penalty), prompt=prompt, output=output)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(torch.tensor([state.token_ids]), logits)
    assert torch.equal(adjusted(logits, state), expected)


@pytest.mark.parametrize("num_generated", range(4))
def test_min_tokens_is_that_of_transformers(num_generated):
    logits = random_logits(1)
    state = State(SamplingParams(min_tokens=2), prompt=[1, 2, 3], output=[4] * num_generated, end_token_ids=frozenset({7, 9}))
    processor = MinNewTokensLengthLogitsProcessor(3, 2, [7, 9], device="cpu")
    assert torch.equal(adjusted(logits, state), processor(torch.tensor([state.token_ids]), logits))


@given(st.lists(st.integers(0, VOCAB_SIZE - 1)), st.sampled_from([0.0, -1.5, 0.4]), st.sampled_from([0.0, -0.1, 2.0]))
def test_presence_and_frequency_count_the_output_alone(output, presence, frequency):
    logits = random_logits(1)
    state = State(SamplingParams(presence_penalty=presence, frequency_penalty=frequency), prompt=[1, 2, 2, 3], output=output)
    expected = [
        value - presence * (token_id in output) - frequency * output.count(token_id)
        for token_id, value in enumerate(logits[0].double().tolist())
    ]
    assert adjusted(logits, state)[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_a_bias_is_added():
    logits = random_logits(1)
    result = adjusted(logits, State(SamplingParams(logit_bias=((3, 5.0), (4, -100.0)))))
    assert (result - logits)[0].tolist() == pytest.approx([0, 0, 0, 5, -100] + [0] * (VOCAB_SIZE - 5), abs=1e-4)


def test_biases_come_before_penalties():
    logits = torch.tensor([[1.0, 2.0]])
    state = State(SamplingParams(logit_bias=((1, 2.0),), repetition_penalty=2.0, presence_penalty=0.5), prompt=[0], output=[1])
    assert adjusted(logits, state).tolist() == [[0.5, (2.0 + 2.0) / 2.0 - 0.5]]


def test_ids_outside_the_vocabulary_have_no_effect():
    logits = random_logits(1)
    params = SamplingParams(logit_bias=((VOCAB_SIZE, 9.0), (-1, 9.0), (2, 1.0)), min_tokens=1)
    result = adjusted(logits, State(params, end_token_ids=frozenset({VOCAB_SIZE + 5, 4})))
    assert (result != logits).nonzero().tolist() == [[0, 2], [0, 4]]


@pytest.mark.parametrize("penalty", [1e-300, 1e300])
def test_no_repetition_penalty_overflows(penalty):
    assert adjusted(random_logits(1), State(SamplingParams(repetition_penalty=penalty), prompt=list(range(VOCAB_SIZE)))).isfinite().all()


def test_rows_that_ask_for_nothing_stay_as_they_are():
    logits = random_logits(3)
    busy = State(
        SamplingParams(logit_bias=((1, 1.0),), repetition_penalty=1.5, presence_penalty=1.0, min_tokens=5),
        output=[3],
        end_token_ids=frozenset({2}),
    )
    result = adjusted(logits, State(), busy, State(prompt=[3], output=[2]))
    assert torch.equal(result[::2], logits[::2])
    assert torch.equal(result[1], adjusted(logits[1:2], busy)[0])
