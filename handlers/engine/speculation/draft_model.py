"""Guess what a smaller model says: one with the same vocabulary, over the same blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from handlers.engine.runner import ResizableRunner
from handlers.engine.sampler import sample
from handlers.engine.scheduler import Chunk, StepPlan
from handlers.engine.sequence import Sequence
from handlers.engine.speculation.drafter import Wish
from handlers.engine.speculation.speculation import Lookahead


class DraftedRunner:
    """A ResizableRunner for a model and its draft model: what a block holds of one, a block of the same number holds of the other."""

    def __init__(self, target: ResizableRunner, draft: ResizableRunner) -> None:
        self._target = target
        self._draft = draft
        self._longest_draft = draft.max_model_len
        self.block_tokens = target.block_tokens
        self.vocab_size = target.vocab_size
        self.weight_bytes = target.weight_bytes + draft.weight_bytes

    @property
    def num_blocks(self) -> int:
        """Blocks of each of the two."""
        return self._target.num_blocks

    @property
    def max_model_len(self) -> int:
        """The model's; see Runner."""
        return self._target.max_model_len

    @property
    def kv_bytes(self) -> int:
        """What the blocks of both take."""
        return self._target.kv_bytes + self._draft.kv_bytes

    def run(self, plan: StepPlan) -> Tensor:
        """Compute a step of the model; see Runner."""
        return self._target.run(plan)

    def reset(self) -> None:
        """Forget all sequences; see Runner."""
        self._target.reset()
        self._draft.reset()

    def resize(self, num_blocks: int, max_model_len: int) -> None:
        """Have other blocks; see ResizableRunner."""
        self._target.resize(num_blocks, max_model_len)
        self._draft.resize(num_blocks, min(max_model_len, self._longest_draft))


@dataclass(slots=True)
class _Guess:
    """One wish on its way: the tokens that the draft model has yet to read, from position ``start`` on, and what it has guessed."""

    wish: Wish
    start: int
    drafts: list[int] = field(default_factory=list)

    @property
    def sequence(self) -> Sequence:
        return self.wish.sequence

    def chunk(self, most_tokens: int) -> Chunk:
        known = self.sequence.token_ids
        pending = (*known[self.start :], *self.drafts[max(self.start - len(known), 0) :])
        token_ids = pending[:most_tokens]
        return Chunk(self.sequence.id, self.start, token_ids, self.wish.chunk.block_ids, samples=len(token_ids) == len(pending))


@dataclass(slots=True)
class _Progress:
    """How far the draft model has read a sequence, in which blocks: the list is another one once the sequence was preempted."""

    block_ids: list[int]
    num_read: int


class ModelDrafter:
    """A Drafter that asks another model, token by token, for all sequences at once.

    It draws as the sequence itself does, with the same parameters and the same noise, so that likely tokens agree when sampling, too.
    ``prompt_tokens``: how much of prompts it reads at once; a sequence whose prompt is longer gets its first guesses some steps later.
    A prefix that was shared is taken to be read, as whoever computed it had it read; where that is not so, guesses are worse.
    """

    def __init__(self, runner: ResizableRunner, *, vocab_size: int, prompt_tokens: int) -> None:
        self._runner = runner
        self._vocab_size = min(vocab_size, runner.vocab_size)
        self._prompt_tokens = prompt_tokens
        self._progress: dict[str, _Progress] = {}

    def draft(self, wishes: list[Wish]) -> dict[str, list[int]]:
        """Guess; see Drafter."""
        guesses = [self._begin(wish) for wish in wishes if self._can_read(wish)]
        going_on = guesses
        while going_on:
            going_on = self._step(going_on)
        return {guess.sequence.id: guess.drafts for guess in guesses}

    def forget(self, sequence: Sequence) -> None:
        """See Drafter."""
        self._progress.pop(sequence.id, None)

    def _can_read(self, wish: Wish) -> bool:
        """Whether the draft model has positions and embeddings for the sequence. No first token waits until it has read the prompt."""
        fits = wish.chunk.end + wish.num_tokens <= self._runner.max_model_len
        return fits and not wish.chunk.is_prompt and max(wish.sequence.token_ids) < self._runner.vocab_size

    def _begin(self, wish: Wish) -> _Guess:
        sequence, progress = wish.sequence, self._progress.get(wish.sequence.id)
        if progress is None:
            progress = self._progress[sequence.id] = _Progress(sequence.block_ids, sequence.num_shared_tokens)
        elif progress.block_ids is not sequence.block_ids:  # it was preempted
            progress.block_ids, progress.num_read = sequence.block_ids, min(progress.num_read, sequence.num_shared_tokens)
        # What it read beyond the tokens that were right was overwritten or is about to be: all but the last one are certain.
        return _Guess(wish, min(progress.num_read, len(sequence.token_ids) - 1))

    def _step(self, guesses: list[_Guess]) -> list[_Guess]:
        """Have everybody's pending tokens read, and return those that want another guess."""
        share = max(self._prompt_tokens // len(guesses), 1)
        chunks = [guess.chunk(share) for guess in guesses]
        ready = [guess for guess, chunk in zip(guesses, chunks, strict=True) if chunk.samples]
        logits = self._runner.run(StepPlan(tuple(chunks)))[:, : self._vocab_size]
        drawn = sample(logits, [Lookahead(guess.sequence, tuple(guess.drafts)) for guess in ready])
        for guess, chunk in zip(guesses, chunks, strict=True):
            guess.start = self._progress[guess.sequence.id].num_read = chunk.end
        for guess, drew in zip(ready, drawn, strict=True):
            if drew is not None:
                guess.drafts.append(drew.token_id)
        return [
            guess
            for guess, drew in zip(ready, drawn, strict=True)
            if drew is not None and drew.token_id not in guess.sequence.end_token_ids and len(guess.drafts) < guess.wish.num_tokens
        ]
