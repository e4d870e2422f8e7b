"""What the sampler is told of a sequence, without a sequence; and any parameters that it may be asked to serve."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from handlers.requests import SamplingParams


@dataclass(frozen=True)
class State:
    """A prompt, and what followed it."""

    params: SamplingParams = SamplingParams()
    seed: int = 0
    prompt: list[int] = field(default_factory=lambda: [0])
    output: list[int] = field(default_factory=list)
    end_token_ids: frozenset[int] = frozenset()

    @property
    def token_ids(self) -> list[int]:
        return self.prompt + self.output

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt)


def greedy(**params) -> SamplingParams:
    """Parameters of a sequence that takes the most likely token."""
    return SamplingParams(temperature=0.0, **params)


def states(vocab_size: int) -> st.SearchStrategy[State]:
    """Sequences with any parameters over a vocabulary; most have a few features on."""
    token_ids = st.lists(st.integers(0, vocab_size - 1), max_size=12)
    params = st.builds(
        SamplingParams,
        temperature=st.sampled_from([0.0, 0.0, 0.7, 1.0, 3.0]),
        top_k=st.sampled_from([0, 0, 1, 4, 40, vocab_size - 100]),
        top_p=st.sampled_from([1.0, 1.0, 0.95, 0.5, 0.1]),
        min_p=st.sampled_from([0.0, 0.0, 0.05, 0.3, 1.0]),
        min_tokens=st.sampled_from([0, 0, 3, 12]),
        repetition_penalty=st.sampled_from([1.0, 1.0, 0.8, 1.3]),
        presence_penalty=st.sampled_from([0.0, 0.0, -2.0, 0.6]),
        frequency_penalty=st.sampled_from([0.0, 0.0, -0.3, 2.0]),
        logit_bias=st.dictionaries(st.integers(0, vocab_size - 1), st.sampled_from([-100.0, -1.0, 2.5, 100.0]), max_size=3).map(
            lambda biases: tuple(biases.items())
        ),
        logprobs=st.sampled_from([None, None, 0, 1, 5]),
    )
    ends = st.frozensets(st.integers(0, vocab_size - 1), max_size=3)
    return st.builds(State, params, st.integers(0, 2**64), token_ids.map(lambda ids: [1, *ids]), token_ids, ends)
