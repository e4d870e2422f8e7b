"""The loop's body: schedule, run, sample, and tell what came of it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable

from handlers.engine.client import Event
from handlers.engine.runner import Runner
from handlers.engine.sampler import sample
from handlers.engine.scheduler import Scheduler
from handlers.engine.sequence import Sequence
from handlers.errors import InvalidRequest
from handlers.requests import SamplingParams

logger = logging.getLogger(__name__)

INVALID_LOGITS = "the model returned no valid probabilities for this request"
CRASHED = "the engine failed while it worked on this request; it has been restarted, try again"


class Engine:
    """Continuous batching over one runner. Single-threaded, except for ``new_sequence``, which any thread may call."""

    def __init__(self, runner: Runner, *, prefill_chunk_tokens: int, eos_token_ids: frozenset[int] = frozenset()) -> None:
        self._runner = runner
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._eos_token_ids = eos_token_ids
        self._sequences: dict[str, Sequence] = {}  # every live one
        self._scheduler = Scheduler(runner.num_slots, prefill_chunk_tokens)

    @property
    def max_model_len(self) -> int:
        """The longest sequence, prompt and generated tokens together."""
        return self._runner.max_model_len

    @property
    def num_slots(self) -> int:
        """Sequences that can run at once."""
        return self._runner.num_slots

    @property
    def num_running(self) -> int:
        """Sequences that hold a slot."""
        return len(self._scheduler.running)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait for a slot."""
        return len(self._scheduler.waiting)

    @property
    def has_work(self) -> bool:
        """Whether any sequence is live."""
        return bool(self._sequences)

    def new_sequence(self, sequence_id: str, prompt_token_ids: Iterable[int], params: SamplingParams) -> Sequence:
        """Check a request and make a sequence of it, with a seed of its own unless one was given.

        ``max_tokens`` may reach past the window: the sequence then ends with "length" where the window ends. Raises InvalidRequest.
        """
        if params.max_tokens is None:
            raise ValueError("SamplingParams.max_tokens must be a number when a sequence reaches the engine, got None")
        if params.max_tokens < 1:
            raise InvalidRequest(f"max_tokens must be at least 1, got {params.max_tokens}", param="max_tokens")
        token_ids = list(prompt_token_ids)
        self._check_prompt(token_ids)
        return Sequence(
            id=sequence_id,
            token_ids=token_ids,
            params=params,
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            max_len=min(len(token_ids) + params.max_tokens, self.max_model_len),
            end_token_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self._eos_token_ids),
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence made by ``new_sequence``."""
        self._sequences[sequence.id] = sequence
        self._scheduler.add(sequence)

    def cancel(self, sequence_id: str) -> Event | None:
        """End a sequence now, and free its slot; None if it is not live."""
        sequence = self._sequences.get(sequence_id)
        if sequence is None:
            return None
        self._forget(sequence)
        return Event(sequence_id, finish_reason="cancelled")

    def step(self) -> list[Event]:
        """Advance every running sequence by one token or one chunk of its prompt; whatever the runner raises passes through."""
        plan = self._scheduler.schedule()
        if not plan.chunks:
            return []
        logits = self._runner.run(plan)
        for chunk in plan.chunks:
            self._sequences[chunk.sequence_id].num_computed = chunk.end
        sampling = [self._sequences[chunk.sequence_id] for chunk in plan.chunks if chunk.samples]
        positions = [sequence.num_computed for sequence in sampling]
        token_ids = sample(logits, [sequence.params for sequence in sampling], [sequence.seed for sequence in sampling], positions)
        return [self._take(sequence, token_id) for sequence, token_id in zip(sampling, token_ids, strict=True)]

    def recover(self) -> list[Event]:
        """After ``step`` raised: fail the sequences that took part and start afresh with those that still wait."""
        victims, survivors = self._scheduler.running, self._scheduler.waiting
        self._sequences = {}
        self._scheduler = Scheduler(self._runner.num_slots, self._prefill_chunk_tokens)
        for sequence in survivors:
            self.add(sequence)
        try:
            self._runner.reset()
        except Exception:  # a lost device: every later step will fail its sequences with the same clear error
            logger.exception("the runner could not be reset")
        return [Event(sequence.id, finish_reason="error", error=CRASHED) for sequence in victims]

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every slot is free or owned by exactly one live sequence."""
        self._scheduler.check_integrity()

    def _check_prompt(self, token_ids: list[int]) -> None:
        if not token_ids:
            raise InvalidRequest("the prompt is empty")
        if len(token_ids) >= self.max_model_len:
            raise InvalidRequest(
                f"the prompt has {len(token_ids)} tokens; with at least one generated token, prompts of up to {self.max_model_len - 1} fit",
                code="context_length_exceeded",
            )
        vocab_size = self._runner.vocab_size
        if not 0 <= min(token_ids) <= max(token_ids) < vocab_size:
            raise InvalidRequest(f"prompt token ids must lie in 0..{vocab_size - 1}, got {min(token_ids)}..{max(token_ids)}")

    def _take(self, sequence: Sequence, token_id: int | None) -> Event:
        if token_id is None:
            self._forget(sequence)
            return Event(sequence.id, finish_reason="error", error=INVALID_LOGITS)
        sequence.append(token_id)
        if sequence.finish_reason is not None:
            self._forget(sequence)
        return Event(sequence.id, (token_id,), sequence.finish_reason, num_stop_tokens=int(sequence.finish_reason == "stop"))

    def _forget(self, sequence: Sequence) -> None:
        del self._sequences[sequence.id]
        self._scheduler.remove(sequence)
