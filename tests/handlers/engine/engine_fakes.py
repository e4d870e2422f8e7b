"""A model without weights: the next token is a function of the sequence's own tokens, and broken contracts are noticed."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import torch

from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.sequence import UNKNOWN, Sequence
from handlers.engine.speculation.drafter import Wish

VOCAB_SIZE = 32
START = 17


def read(state: int, token_id: int) -> int:
    """What the fake model has in mind after one more token."""
    return (state * 31 + token_id + 1) % 1_000_003


def next_token(token_ids: list[int]) -> int:
    """What the fake model says after ``token_ids``; depends on all of them and on their order."""
    state = START
    for token_id in token_ids:
        state = read(state, token_id)
    return state % VOCAB_SIZE


def continuation(prompt: list[int], max_len: int, end_token_ids: frozenset[int]) -> list[int]:
    """The oracle: what one sequence generates alone."""
    token_ids, state = [], START
    for token_id in prompt:
        state = read(state, token_id)
    while len(prompt) + len(token_ids) < max_len:
        token_ids.append(state % VOCAB_SIZE)
        state = read(state, token_ids[-1])
        if token_ids[-1] in end_token_ids:
            break
    return token_ids


class BrokenContract(BaseException):
    """The engine asked for what it must not: no Exception, so that no recovery hides it."""


class FakeRunner:
    """Keeps in every block what the model has in mind after each of its tokens, as keys and values do: a wrong block gives wrong tokens.

    Raises ``failures[step]`` at that step, and answers NaN once a sequence has contained ``poison``. A plan that breaks the Runner's
    contract raises BrokenContract.
    """

    vocab_size = VOCAB_SIZE
    weight_bytes = 0
    kv_bytes = 0

    def __init__(
        self,
        num_blocks: int = 64,
        block_tokens: int = 4,
        max_model_len: int | None = None,
        failures: dict[int, Exception] | None = None,
        poison: int | None = None,
    ) -> None:
        self.num_blocks = num_blocks
        self.block_tokens = block_tokens
        self.max_model_len = max_model_len or num_blocks * block_tokens
        self.failures = failures or {}
        self.poison = poison
        self.num_steps = 0
        self.plans: list[StepPlan] = []
        self.contents: dict[int, dict[int, tuple[int, bool]]] = {}  # block → offset → state, and whether there was poison

    def run(self, plan: StepPlan) -> torch.Tensor:
        self.num_steps += 1
        self.plans.append(plan)
        if self.num_steps in self.failures:
            raise self.failures[self.num_steps]
        try:
            self._check_writes(plan)
            states = [(chunk, self._compute(chunk)) for chunk in plan.chunks]
        except (AssertionError, LookupError) as error:
            raise BrokenContract from error
        sampled = [state for chunk, after in states for state in after[len(after) - chunk.num_logits :]]
        logits = torch.zeros(len(sampled), VOCAB_SIZE)
        for row, (state, is_poisoned) in enumerate(sampled):
            logits[row, state % VOCAB_SIZE] = torch.nan if is_poisoned else 1.0
        return logits

    def reset(self) -> None:
        self.contents.clear()

    def _check_writes(self, plan: StepPlan) -> None:
        assert plan.chunks, "an empty step is no step"
        assert len({chunk.sequence_id for chunk in plan.chunks}) == len(plan.chunks)
        owners = Counter(block for chunk in plan.chunks for block in chunk.block_ids)
        for chunk in plan.chunks:
            assert chunk.token_ids
            assert chunk.end <= self.max_model_len
            assert len(set(chunk.block_ids)) == len(chunk.block_ids)
            written = chunk.block_ids[chunk.start // self.block_tokens : (chunk.end - 1) // self.block_tokens + 1]
            assert all(owners[block] == 1 for block in written), "a chunk writes to a block that another sequence reads"

    def _compute(self, chunk: Chunk) -> list[tuple[int, bool]]:
        """Read on from what the blocks hold, and return the state after each token; a position that was never written is a KeyError."""
        state, is_poisoned = self._at(chunk, chunk.start - 1) if chunk.start else (START, False)
        states = []
        for position, token_id in enumerate(chunk.token_ids, chunk.start):
            state, is_poisoned = read(state, token_id), is_poisoned or token_id == self.poison
            block, offset = chunk.block_ids[position // self.block_tokens], position % self.block_tokens
            content = self.contents.setdefault(block, {})
            if not offset:
                content.clear()  # a block is filled from its beginning: what it held before is gone
            content[offset] = state, is_poisoned
            states.append((state, is_poisoned))
        return states

    def _at(self, chunk: Chunk, position: int) -> tuple[int, bool]:
        return self.contents[chunk.block_ids[position // self.block_tokens]][position % self.block_tokens]


class PipelinedFakeRunner(FakeRunner):
    """A FakeRunner that may be asked for a step before the tokens of the one before are known."""

    def run(self, plan: StepPlan) -> torch.Tensor:
        return self.run_after(plan, torch.empty(0, dtype=torch.long))

    def run_after(self, plan: StepPlan, drawn: torch.Tensor) -> torch.Tensor:
        try:
            known = StepPlan(tuple(self._known(chunk, drawn.tolist()) for chunk in plan.chunks))
        except (AssertionError, LookupError) as error:
            raise BrokenContract from error
        return super().run(known)

    @staticmethod
    def _known(chunk: Chunk, drawn: list[int]) -> Chunk:
        assert (chunk.token_ids[-1] == UNKNOWN) == (chunk.late_row is not None)
        assert UNKNOWN not in chunk.token_ids[:-1]
        if chunk.late_row is None:
            return chunk
        return replace(chunk, token_ids=(*chunk.token_ids[:-1], max(drawn[chunk.late_row], 0)), late_row=None)


class FakeDrafter:
    """Guesses what the fake model will say, but for a wrong token now and then, and fewer than are wished for."""

    def __init__(self, one_wrong_in: int) -> None:
        self.one_wrong_in = one_wrong_in
        self.live: set[str] = set()

    def draft(self, wishes: list[Wish]) -> dict[str, list[int]]:
        return {wish.sequence.id: self._guess(wish) for wish in wishes}

    def forget(self, sequence: Sequence) -> None:
        self.live.discard(sequence.id)

    def _guess(self, wish: Wish) -> list[int]:
        self.live.add(wish.sequence.id)
        length = len(wish.sequence.token_ids)
        guess = continuation(wish.sequence.token_ids, length + wish.num_tokens - length % 2, frozenset())
        return [(token_id + ((length + index) % self.one_wrong_in == 0)) % VOCAB_SIZE for index, token_id in enumerate(guess)]


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
