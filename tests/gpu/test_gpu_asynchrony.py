"""Nothing between two steps waits for the GPU, whatever requests ask for: torch raises where an operation would."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from handlers.engine.sampler import Draw, draw
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.sequence import UNKNOWN, Sequence
from handlers.requests import SamplingParams
from tests.gpu.test_gpu_runner import EOS, chunk, make_model, make_runner

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

BIASED = SamplingParams(max_tokens=20, temperature=0.0, logit_bias=((5, 1.0), (6, -1.0)), min_tokens=15)
SAMPLED = SamplingParams(max_tokens=20, temperature=0.7, top_p=0.9, top_k=50, min_p=0.01, logprobs=3, min_tokens=15)
PENALIZED = SamplingParams(max_tokens=20, repetition_penalty=1.2, presence_penalty=0.3, frequency_penalty=0.2)
PROMPT = [3, 4, 5]


@contextmanager
def nothing_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def sequence(index: int, params: SamplingParams) -> Sequence:
    """Return one that has said something."""
    made = Sequence(str(index), list(PROMPT), params, seed=index, max_len=64, end_token_ids=frozenset([EOS]))
    made.append(8)
    return made


def late_chunk(index: int) -> Chunk:
    """Return a token that the step before has yet to draw."""
    start = len(PROMPT)
    return Chunk(str(index), start, (UNKNOWN,), chunk(index, 0, [1]).block_ids, samples=True, late_row=index)


@pytest.mark.parametrize("cuda_graphs", [True, False], ids=["graphs", "eager"])
@pytest.mark.parametrize(
    "params", [[BIASED], [SAMPLED], [PENALIZED], [BIASED, SAMPLED, PENALIZED, SAMPLED]], ids=["biased", "sampled", "penalized", "mixed"]
)
def test_asking_for_steps_and_tokens_waits_for_nothing(params: list[SamplingParams], cuda_graphs: bool) -> None:
    runner = make_runner(make_model("llama"), cuda_graphs=cuda_graphs)
    sequences = [sequence(index, each) for index, each in enumerate(params)]
    read = StepPlan(tuple(chunk(index, 0, PROMPT) for index in range(len(params))))
    go_on = StepPlan(tuple(late_chunk(index) for index in range(len(params))))

    def ask() -> list[Draw]:
        first = draw(runner.run(read), sequences)
        return [first, draw(runner.run_after(go_on, first.token_ids), sequences)]

    expected = [each.samples() for each in ask()]  # compiles, and pins memory
    with nothing_waits():
        draws = ask()
    assert [each.samples() for each in draws] == expected
