"""A model without weights: the next token is a function of the sequence's own tokens, and broken contracts are noticed."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch

from handlers.engine.scheduler import StepPlan

VOCAB_SIZE = 32


def next_token(token_ids: Sequence[int]) -> int:
    """What the fake model says after ``token_ids``; depends on all of them and on their order."""
    state = 17
    for token_id in token_ids:
        state = (state * 31 + token_id + 1) % 1_000_003
    return state % VOCAB_SIZE


def continuation(prompt: Sequence[int], max_len: int, end_token_ids: frozenset[int]) -> list[int]:
    """The oracle: what one sequence generates alone."""
    token_ids = list(prompt)
    while len(token_ids) < max_len:
        token_ids.append(next_token(token_ids))
        if token_ids[-1] in end_token_ids:
            break
    return token_ids[len(prompt) :]


class FakeRunner:
    """Remembers each slot's tokens, raises ``failures[step]`` at that step, and answers NaN for sequences that contain ``poison``."""

    vocab_size = VOCAB_SIZE

    def __init__(self, num_slots=4, max_model_len=64, failures: dict[int, Exception] | None = None, poison: int | None = None):
        self.num_slots = num_slots
        self.max_model_len = max_model_len
        self.failures = failures or {}
        self.poison = poison
        self.num_steps = 0
        self.plans: list[StepPlan] = []
        self.contents: dict[int, list[int]] = {}

    def run(self, plan: StepPlan) -> torch.Tensor:
        self.num_steps += 1
        self.plans.append(plan)
        if self.num_steps in self.failures:
            raise self.failures[self.num_steps]
        assert len({chunk.slot for chunk in plan.chunks}) == len(plan.chunks) <= self.num_slots
        return torch.stack([*self._rows(plan), torch.zeros(VOCAB_SIZE)])[:-1]

    def reset(self) -> None:
        self.contents.clear()

    def _rows(self, plan: StepPlan):
        for chunk in plan.chunks:
            if chunk.start == 0:
                self.contents[chunk.slot] = []
            content = self.contents[chunk.slot]
            assert chunk.start == len(content), "a chunk must continue where the slot's content ends"
            content.extend(chunk.token_ids)
            assert len(content) <= self.max_model_len
            if chunk.samples:
                yield self._logits(content)

    def _logits(self, content: list[int]) -> torch.Tensor:
        logits = torch.zeros(VOCAB_SIZE)
        logits[next_token(content)] = 1.0
        return logits * torch.nan if self.poison in content else logits


class GatedRunner(FakeRunner):
    """A FakeRunner that waits at every step until the test lets it through."""

    def __init__(self, **sizes: int) -> None:
        super().__init__(**sizes)
        self.gate = threading.Semaphore(0)
        self.entered = threading.Semaphore(0)

    def run(self, plan: StepPlan) -> torch.Tensor:
        self.entered.release()
        self.gate.acquire()
        return super().run(plan)
