"""The loop's body: schedule, run, sample, and tell what came of it."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable

from torch import Tensor

from handlers.engine.admission import EngineLimits
from handlers.engine.allowance import Allowance
from handlers.engine.client import EngineStats, Event, Start
from handlers.engine.memory.footprint import Footprint
from handlers.engine.memory.out_of_memory import is_out_of_memory
from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.runner import Runner
from handlers.engine.sampler import Sample, sample
from handlers.engine.scheduler import Scheduler, StepPlan
from handlers.engine.sequence import Sequence
from handlers.requests import FinishReason, SamplingParams

logger = logging.getLogger(__name__)

INVALID_LOGITS = "the model returned no valid probabilities for this request"
PROMPT_FAILED = "the engine failed while it read this prompt"
OUT_OF_MEMORY = "the engine has too little memory for this request, even alone; send a shorter one, or try again later"
CRASHED = "the engine failed while it worked on this request; it has been restarted, try again"


class Engine:
    """Continuous batching over one runner. Single-threaded, except for ``limits`` and ``new_sequence``, which any thread may use.

    Up to ``max_running`` sequences run at once. ``max_waiting`` and ``max_queued_tokens`` are for those who add: see EngineLimits.
    ``smallest_chunk_tokens`` (None: a block's) of a prompt are read at once even where memory is short. ``can_preempt``: whether the runner
    can take up again what has generated something. ``footprint`` is what was measured of it at load; ``release_unused`` gives memory that
    nobody uses back to the device.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        max_running: int,
        max_waiting: int = 192,
        max_queued_tokens: int | None = None,
        prefill_chunk_tokens: int = 512,
        smallest_chunk_tokens: int | None = None,
        prefix_caching: bool = True,
        can_preempt: bool = True,
        eos_token_ids: frozenset[int] = frozenset(),
        footprint: Footprint | None = None,
        release_unused: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if runner.max_model_len > runner.num_blocks * runner.block_tokens:
            raise ValueError(f"{runner.num_blocks} blocks of {runner.block_tokens} tokens do not hold {runner.max_model_len}")
        self.limits = EngineLimits(runner.max_model_len, runner.vocab_size, max_running, max_waiting, max_queued_tokens)
        self._runner = runner
        self._eos_token_ids = eos_token_ids
        self._clock = clock
        self._sequences: dict[str, Sequence] = {}  # every live one
        self._cache = PrefixCache(runner.num_blocks, runner.block_tokens, keeps_unused=prefix_caching)
        self._scheduler = Scheduler(self._cache, max_running=max_running, prefill_chunk_tokens=prefill_chunk_tokens)
        self._allowance = Allowance(
            max_running=max_running,
            prompt_tokens=prefill_chunk_tokens,
            smallest_chunk_tokens=smallest_chunk_tokens or runner.block_tokens,
        )
        self._can_preempt = can_preempt
        self._footprint = footprint or Footprint(weights=runner.weight_bytes, kv_cache=runner.kv_bytes)
        self._release_unused = release_unused
        self._plan = StepPlan(())  # of the step in progress
        self._num_steps = 0
        self._num_out_of_memory = 0

    @property
    def has_work(self) -> bool:
        """Whether any sequence is live."""
        return bool(self._sequences)

    @property
    def next_deadline_s(self) -> float:
        """When the next waiting sequence expires, on the engine's clock; infinity when none does."""
        return self._scheduler.next_deadline_s()

    def new_sequence(
        self,
        sequence_id: str,
        prompt_token_ids: Iterable[int],
        params: SamplingParams,
        *,
        priority: int = 0,
        max_queue_s: float | None = None,
    ) -> Sequence:
        """Check a request and make a sequence of it, with a seed of its own unless one was given.

        ``max_tokens`` may reach past the window: the sequence then ends with "length" where the window ends. Raises InvalidRequest.
        """
        token_ids = list(prompt_token_ids)
        self.limits.check(token_ids, params)
        assert params.max_tokens is not None
        now_s = self._clock()
        return Sequence(
            id=sequence_id,
            token_ids=token_ids,
            params=params,
            seed=secrets.randbits(64) if params.seed is None else params.seed,
            max_len=min(len(token_ids) + params.max_tokens, self.limits.max_model_len),
            end_token_ids=frozenset(params.stop_token_ids) | (frozenset() if params.ignore_eos else self._eos_token_ids),
            priority=priority,
            arrived_s=now_s,
            deadline_s=math.inf if max_queue_s is None else now_s + max_queue_s,
        )

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence made by ``new_sequence``."""
        self._sequences[sequence.id] = sequence
        self._scheduler.add(sequence)

    def cancel(self, sequence_id: str) -> Event | None:
        """End a sequence now, and free its blocks; None if it is not live."""
        sequence = self._sequences.get(sequence_id)
        return self._end(sequence, "cancelled") if sequence else None

    def expire(self) -> list[Event]:
        """End the sequences that have waited too long. Call it before ``step``, so that none of them is run."""
        return [self._end(sequence, "expired") for sequence in self._scheduler.expired(self._clock())]

    def step(self) -> list[Event]:
        """Advance every running sequence by one token, and prompts by a chunk.

        Where memory does not suffice, the step is tried again with half as much in it, and those that are left out wait; nobody fails who
        is not alone. Where the runner fails over a prompt, the sequences that were reading theirs fail alone. Whatever else it raises
        passes through: ``recover`` then.
        """
        while True:
            self._plan = plan = self._scheduler.schedule(self._clock())
            if not plan.chunks:
                return []
            events = self._try(plan)
            if events is not None:
                break
            # Not where the error was caught: while it was handled, its traceback held the tensors of the step.
            self._release_unused()
            if not self._allowance.cut(plan):
                self._plan = StepPlan(())
                return [self._end(self._sequences[plan.chunks[0].sequence_id], "error", OUT_OF_MEMORY)]
            self._apply_allowance()
        if self._allowance.note_clean_step():
            self._apply_allowance()
        self._num_steps += 1
        self._plan = StepPlan(())
        return events

    def recover(self) -> list[Event]:
        """After ``step`` raised: fail the sequences that took part, and start afresh with the others."""
        victims = [chunk.sequence_id for chunk in self._plan.chunks] or list(self._sequences)  # all, if nobody knows who it was
        for sequence_id in victims:
            self._sequences.pop(sequence_id, None)
        self._scheduler.restart(self._sequences.values())
        try:
            self._runner.reset()
        except Exception:  # a lost device: every later step will fail its sequences with the same clear error
            logger.exception("the runner could not be reset")
        return [Event(sequence_id, finish_reason="error", error=CRASHED) for sequence_id in victims]

    def stats(self) -> EngineStats:
        """Return what the engine itself can count: nothing that needs a clock."""
        return EngineStats(
            running=self._scheduler.num_running,
            waiting=self._scheduler.num_waiting,
            blocks_used=self._cache.num_owned,
            blocks_total=self._cache.num_blocks,
            queried_tokens=self._scheduler.queried_tokens,
            cached_tokens=self._scheduler.cached_tokens,
            preemptions=self._scheduler.num_preemptions,
            steps=self._num_steps,
            engines=1,
            max_running=self._allowance.max_running,
            out_of_memory=self._num_out_of_memory,
            weight_bytes=self._footprint.weights,
            kv_bytes=self._footprint.kv_cache,
            activation_bytes=self._footprint.activations,
            context_bytes=self._footprint.context,
            graph_bytes=self._footprint.graphs,
        )

    def check_integrity(self) -> None:
        """Raise RuntimeError unless every block is free, cached or owned by live sequences, and every live sequence is known."""
        self._scheduler.check_integrity()
        if self._scheduler.num_running + self._scheduler.num_waiting != len(self._sequences):
            raise RuntimeError("the scheduler has lost a sequence, or keeps one that has ended")

    def _try(self, plan: StepPlan) -> list[Event] | None:
        """Run and sample; None, with nothing changed, if memory did not suffice for it."""
        try:
            ran, logits = self._run(plan)
            drawn = sample(logits, [self._sequences[chunk.sequence_id] for chunk in ran.chunks if chunk.samples])
        except Exception as error:
            if not self._can_retry(error):
                raise
            self._num_out_of_memory += 1
            num_tokens = sum(len(chunk.token_ids) for chunk in plan.chunks)
            logger.warning("out of memory in a step of %d sequences and %d tokens: %s", len(plan.chunks), num_tokens, _first_line(error))
            return None
        events = self._take_samples(ran, drawn)
        if ran is not plan:
            failed = [self._sequences[chunk.sequence_id] for chunk in plan.chunks if chunk.is_prompt]
            events += [self._end(sequence, "error", PROMPT_FAILED) for sequence in failed]
        return events

    def _run(self, plan: StepPlan) -> tuple[StepPlan, Tensor]:
        """Run ``plan``, or what is in it beside prompts if it fails with them. Decodes may be repeated: they write the same again."""
        try:
            return plan, self._runner.run(plan)
        except Exception as error:
            decodes = plan.decodes
            if self._can_retry(error) or len(decodes.chunks) in (0, len(plan.chunks)):
                raise
            logger.exception("the runner failed; running the step again without the prompts in it")
            return decodes, self._runner.run(decodes)

    def _can_retry(self, error: Exception) -> bool:
        return self._can_preempt and is_out_of_memory(error)

    def _apply_allowance(self) -> None:
        self._scheduler.limit(max_running=self._allowance.max_running, prefill_chunk_tokens=self._allowance.prompt_tokens)

    def _take_samples(self, plan: StepPlan, drawn: list[Sample | None]) -> list[Event]:
        for chunk in plan.chunks:
            self._cache.advance(self._sequences[chunk.sequence_id], chunk.end)
        sampling = [self._sequences[chunk.sequence_id] for chunk in plan.chunks if chunk.samples]
        return [self._take(sequence, each) for sequence, each in zip(sampling, drawn, strict=True)]

    def _take(self, sequence: Sequence, drawn: Sample | None) -> Event:
        if drawn is None:
            self._cache.distrust(sequence)
            return self._end(sequence, "error", INVALID_LOGITS)
        sequence.append(drawn.token_id)
        if sequence.finish_reason is not None:
            self._forget(sequence)
        return Event(
            sequence.id,
            (drawn.token_id,),
            sequence.finish_reason,
            num_stop_tokens=int(sequence.finish_reason == "stop"),
            logprobs=(drawn.logprob,) if drawn.logprob else (),
            start=_start(sequence) if sequence.num_generated == 1 else None,
        )

    def _end(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> Event:
        self._forget(sequence)
        return Event(sequence.id, finish_reason=reason, error=error)

    def _forget(self, sequence: Sequence) -> None:
        del self._sequences[sequence.id]
        self._scheduler.remove(sequence)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _start(sequence: Sequence) -> Start:
    assert sequence.started_s is not None
    return Start(sequence.started_s - sequence.arrived_s, sequence.num_cached_tokens)
